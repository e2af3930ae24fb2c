-- Deleted at Stripe, which allows that only of what was never priced; its prices with it.
WITH prices AS (
    DELETE FROM stripe_prices WHERE platform_id = $1 AND livemode = $2 AND product_id = $3
)
DELETE FROM stripe_products WHERE platform_id = $1 AND livemode = $2 AND product_id = $3
