-- One price, with what its product sells.
SELECT
    stripe_prices.price_id,
    stripe_prices.product_id,
    stripe_prices.active,
    stripe_prices.currency,
    stripe_prices.unit_amount,
    stripe_prices.months,
    stripe_prices.problem
FROM stripe_prices
WHERE platform_id = $1 AND livemode = $2 AND price_id = $3
