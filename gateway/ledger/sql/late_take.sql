-- The next one that nobody else is applying. The lock is kept until the row is gone, so that a call
-- is told to Redis by one at a time.
SELECT
    replace(call_id::text, '-', '') AS call_id,
    shard,
    platform_id,
    account_id,
    key_id,
    route_id,
    price_version,
    session,
    to_ms(admitted_at) AS admitted_ms,
    to_ms(ended_at) AS ended_ms,
    ending,
    status,
    units,
    flags,
    held_microcredits,
    owed_microcredits
FROM late_settlements
WHERE late_settlements.call_id > $1 AND ($2::integer IS NULL OR shard = $2)
ORDER BY late_settlements.call_id
LIMIT 1
FOR UPDATE SKIP LOCKED
