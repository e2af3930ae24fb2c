-- Under which customer's lock an account's payments are worked on: the one that it has, else the
-- last that it had, else none.
SELECT customer_id
FROM stripe_customers
WHERE platform_id = $1 AND livemode = $2 AND account_id = $3
ORDER BY deleted_at DESC NULLS FIRST, created_at DESC
LIMIT 1
