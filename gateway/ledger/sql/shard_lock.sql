-- One process rebuilds a shard; it asks other things meanwhile, longer than a session may else be
-- idle in a transaction.
SELECT
    set_config('idle_in_transaction_session_timeout', '15min', true),
    pg_advisory_xact_lock($1::integer, $2::integer)
