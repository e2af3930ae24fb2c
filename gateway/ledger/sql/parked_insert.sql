-- The hold of a task, so that it can be put back when Redis has lost it. What is known of it last
-- counts.
INSERT INTO parked_holds
    (call_id, shard, platform_id, account_id, task, hold, record, lease_ms)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (call_id) DO UPDATE SET
    task = excluded.task,
    hold = excluded.hold,
    record = excluded.record,
    lease_ms = excluded.lease_ms
