-- Calls of a shard that ended and are not charged in Redis yet, oldest first.
SELECT
    replace(call_id::text, '-', '') AS call_id,
    account_id,
    to_ms(ended_at) AS ended_ms,
    ending,
    held_microcredits,
    owed_microcredits
FROM late_settlements
WHERE shard = $1
ORDER BY ended_at, call_id
LIMIT $2
