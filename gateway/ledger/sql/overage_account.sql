-- Whose a subscription is.
SELECT account_id FROM subscriptions
WHERE platform_id = $1 AND livemode = $2 AND stripe_id = $3
