-- Whose a subscription is that the books know. No row: they don't.
SELECT account_id, customer_id
FROM subscriptions
WHERE platform_id = $1 AND livemode = $2 AND stripe_id = $3
