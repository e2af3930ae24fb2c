-- A lot with credits that a payment had given before: a part of it, although it gave them once.
INSERT INTO paid_lots (grant_id, transaction_id, platform_id, account_id, microcredits)
SELECT $1, id, platform_id, account_id, 0 FROM billing_transactions WHERE id = $2
ON CONFLICT (grant_id) DO NOTHING
