-- One process rebuilds a shard. Who waits for it in vain leaves the queue here, too. Who has it
-- shows that it lives (shard_lock_keep.sql); one that is stopped is cut off, and the shard is
-- another's.
SELECT
    set_config('lock_timeout', $3, true),
    set_config('idle_in_transaction_session_timeout', '15s', true),
    pg_advisory_xact_lock($1::integer, $2::integer)
