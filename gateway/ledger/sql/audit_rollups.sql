-- The coarser roll-ups are the sums of the hours of accounts. Answers what disagrees: of which
-- route, account or key; an account of 0 stands for all of them.
SELECT
    rollup,
    platform_id,
    account_id,
    part,
    part_id,
    to_ms(since) AS since_ms,
    coalesce(calls, 0)::bigint AS calls,
    coalesce(calls_rolled, 0) AS calls_rolled,
    coalesce(charged, 0)::bigint AS charged_microcredits,
    coalesce(charged_rolled, 0) AS charged_rolled_microcredits
FROM (
    SELECT
        'usage_routes_hourly' AS rollup, platform_id, 0 AS account_id,
        'route' AS part, route_id AS part_id, hour AS since,
        hours.calls, hours.completed, hours.held, hours.charged, hours.uncollected,
        rolled.calls AS calls_rolled,
        rolled.calls_completed, rolled.held_microcredits,
        rolled.charged_microcredits AS charged_rolled, rolled.uncollected_microcredits
    FROM usage_routes_hourly AS rolled
    FULL JOIN (
        SELECT
            platform_id, hour, route_id,
            sum(calls) AS calls, sum(calls_completed) AS completed,
            sum(held_microcredits) AS held, sum(charged_microcredits) AS charged,
            sum(uncollected_microcredits) AS uncollected
        FROM usage_hourly
        GROUP BY 1, 2, 3
    ) AS hours USING (platform_id, hour, route_id)
    UNION ALL
    SELECT
        'usage_routes_daily' AS rollup, platform_id, 0 AS account_id,
        'route' AS part, route_id AS part_id, day AS since,
        hours.calls, hours.completed, hours.held, hours.charged, hours.uncollected,
        rolled.calls AS calls_rolled,
        rolled.calls_completed, rolled.held_microcredits,
        rolled.charged_microcredits AS charged_rolled, rolled.uncollected_microcredits
    FROM usage_routes_daily AS rolled
    FULL JOIN (
        SELECT
            platform_id, date_trunc('day', hour, 'UTC') AS day, route_id,
            sum(calls) AS calls, sum(calls_completed) AS completed,
            sum(held_microcredits) AS held, sum(charged_microcredits) AS charged,
            sum(uncollected_microcredits) AS uncollected
        FROM usage_hourly
        GROUP BY 1, 2, 3
    ) AS hours USING (platform_id, day, route_id)
    UNION ALL
    SELECT
        'usage_accounts_daily' AS rollup, platform_id, account_id,
        'account' AS part, account_id AS part_id, day AS since,
        hours.calls, hours.completed, hours.held, hours.charged, hours.uncollected,
        rolled.calls AS calls_rolled,
        rolled.calls_completed, rolled.held_microcredits,
        rolled.charged_microcredits AS charged_rolled, rolled.uncollected_microcredits
    FROM usage_accounts_daily AS rolled
    FULL JOIN (
        SELECT
            platform_id, date_trunc('day', hour, 'UTC') AS day, account_id,
            sum(calls) AS calls, sum(calls_completed) AS completed,
            sum(held_microcredits) AS held, sum(charged_microcredits) AS charged,
            sum(uncollected_microcredits) AS uncollected
        FROM usage_hourly
        GROUP BY 1, 2, 3
    ) AS hours USING (platform_id, day, account_id)
    UNION ALL
    SELECT
        'usage_parts_daily', platform_id, account_id,
        CASE WHEN is_key THEN 'key' ELSE 'route' END, part_id, day,
        hours.calls, hours.completed, hours.held, hours.charged, hours.uncollected,
        rolled.calls,
        rolled.calls_completed, rolled.held_microcredits,
        rolled.charged_microcredits, rolled.uncollected_microcredits
    FROM usage_parts_daily AS rolled
    FULL JOIN (
        SELECT
            platform_id, account_id, date_trunc('day', hour, 'UTC') AS day,
            grouping(key_id) = 0 AS is_key,
            CASE grouping(key_id) WHEN 0 THEN key_id ELSE route_id END AS part_id,
            sum(calls) AS calls, sum(calls_completed) AS completed,
            sum(held_microcredits) AS held, sum(charged_microcredits) AS charged,
            sum(uncollected_microcredits) AS uncollected
        FROM usage_hourly
        GROUP BY 1, 2, 3, GROUPING SETS (route_id, key_id)
    ) AS hours USING (platform_id, account_id, day, is_key, part_id)
) AS compared
WHERE calls IS DISTINCT FROM calls_rolled
    OR completed IS DISTINCT FROM calls_completed
    OR held IS DISTINCT FROM held_microcredits
    OR charged IS DISTINCT FROM charged_rolled
    OR uncollected IS DISTINCT FROM uncollected_microcredits
ORDER BY rollup, platform_id, account_id, part, part_id, since
LIMIT $1
