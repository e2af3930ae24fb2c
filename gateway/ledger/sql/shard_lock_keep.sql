-- Whoever rebuilds a shard lives: the session is not idle.
SELECT true
