-- Every step of taking back of a payment, or giving again, oldest first.
SELECT
    replace(id::text, '-', '') AS clawback_id, cause, amount_microcredits, taken_microcredits,
    owed_microcredits, parts, is_done
FROM clawbacks
WHERE transaction_id = $1
ORDER BY created_at, id
