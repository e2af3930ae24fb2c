-- The holds of tasks that a shard is to have, oldest call first.
SELECT
    replace(call_id::text, '-', '') AS call_id,
    shard,
    platform_id,
    account_id,
    task,
    hold,
    record,
    lease_ms
FROM parked_holds
WHERE shard = $1
ORDER BY parked_holds.call_id
