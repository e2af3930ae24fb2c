-- Held as long as this connection lives: that is how a rebuild knows whom to wait for.
SELECT pg_advisory_lock_shared($1::integer, $2::integer)
