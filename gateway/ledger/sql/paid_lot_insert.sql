-- A lot that a payment gave, and what it gave then: a refund takes back of that.
INSERT INTO paid_lots (grant_id, transaction_id, platform_id, account_id, microcredits)
SELECT $1, id, platform_id, account_id, $3 FROM billing_transactions WHERE id = $2
ON CONFLICT (grant_id) DO NOTHING
