-- A customer is an account's, once and for all. No row: it is somebody's already, or the account
-- has another customer, or is another platform's.
INSERT INTO stripe_customers (platform_id, livemode, customer_id, account_id)
SELECT platform_id, $2, $3, id FROM accounts WHERE platform_id = $1 AND id = $4
ON CONFLICT DO NOTHING
RETURNING account_id
