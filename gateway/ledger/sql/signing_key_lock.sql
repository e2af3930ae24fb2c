-- Nodes that start, or rotate, at once make their keys one after the other.
SELECT pg_advisory_xact_lock(hashtextextended('tollkeeper signing keys', 0))
