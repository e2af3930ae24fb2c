-- Delivered at commit, to whoever listens then.
SELECT pg_notify($1, $2)
