-- For how many months these prices are; NULL: paid once. Those that were looked at.
SELECT price_id, product_id, months
FROM stripe_prices
WHERE platform_id = $1 AND livemode = $2 AND price_id = ANY ($3::text[])
