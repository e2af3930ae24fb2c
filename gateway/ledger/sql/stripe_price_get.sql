-- Prices of some products, by months and amount.
SELECT price_id, product_id, active, currency, unit_amount, months, problem
FROM stripe_prices
WHERE platform_id = $1 AND livemode = $2 AND product_id = ANY ($3::text[])
ORDER BY product_id, months NULLS FIRST, currency, unit_amount, price_id
