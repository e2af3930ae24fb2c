-- How much waits for Redis.
SELECT count(*) FROM late_settlements
