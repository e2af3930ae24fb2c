-- The workers that live: who holds a lock of their class. 2 marks locks of two numbers.
SELECT DISTINCT objid::bigint AS worker_id
FROM pg_locks
WHERE locktype = 'advisory'
    AND classid = $1::bigint::oid
    AND objsubid = 2
    AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
