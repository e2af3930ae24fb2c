-- Whose a customer is, also one that was deleted. No row: nobody's.
SELECT account_id
FROM stripe_customers
WHERE platform_id = $1 AND livemode = $2 AND customer_id = $3
