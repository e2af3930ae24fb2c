-- Prices of a product that Stripe does not have any more go.
DELETE FROM stripe_prices
WHERE platform_id = $1 AND livemode = $2 AND product_id = $3 AND price_id <> ALL ($4::text[])
