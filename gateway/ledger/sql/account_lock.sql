-- Whoever tells Redis about an account does so alone, so that the last to tell has read all that
-- was committed. No row lock: that would keep inserts and updates of this process waiting on
-- connections which the holder needs.
SELECT pg_advisory_xact_lock(hashtextextended('tollkeeper account ' || $1::bigint::text, 0))
