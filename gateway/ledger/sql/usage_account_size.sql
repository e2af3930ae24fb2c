-- How many hours of an account there are in a time, of each route and key one; at most $5 are
-- counted.
SELECT count(*)
FROM (
    SELECT
    FROM usage_hourly
    WHERE platform_id = $1 AND account_id = $2 AND hour >= from_ms($3) AND hour < from_ms($4)
    LIMIT $5
) AS hours
