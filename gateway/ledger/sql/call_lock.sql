-- Whoever gives a call's credits back does so alone. No row lock: the API's role may not change
-- settlements, so it may not lock them either.
SELECT pg_advisory_xact_lock(hashtextextended('tollkeeper call ' || $1::uuid::text, 0))
