-- Who changes a resource compares its version with what he has seen, then changes it: alone.
SELECT pg_advisory_xact_lock(hashtextextended('tollkeeper resource ' || $1::text, 0))
