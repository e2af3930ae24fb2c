-- As account_lock, of many, in one order: two who tell of many wait for each other once, not for
-- ever.
SELECT pg_advisory_xact_lock(hashtextextended('tollkeeper account ' || wanted.id::text, 0))
FROM (SELECT id FROM unnest($1::bigint[]) AS ids (id) ORDER BY id) AS wanted
