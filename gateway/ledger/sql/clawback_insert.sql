-- A step of taking back, before Redis is asked; or one of giving again, which is done with it.
INSERT INTO clawbacks (
    id, platform_id, account_id, transaction_id, cause, amount_microcredits, parts,
    taken_microcredits, owed_microcredits, is_done
)
SELECT $1, platform_id, account_id, id, $3, $4, $5, $6, $7, $8
FROM billing_transactions
WHERE id = $2
