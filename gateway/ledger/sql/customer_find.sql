-- The customer that an account is now, in a mode.
SELECT customer_id
FROM stripe_customers
WHERE platform_id = $1 AND livemode = $2 AND account_id = $3 AND deleted_at IS NULL
