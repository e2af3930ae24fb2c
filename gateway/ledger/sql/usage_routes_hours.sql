-- What the routes of a platform sold, all together or told apart ($6), or one of them ($7), by the
-- hour ($5 is always hour).
WITH used AS (
    SELECT
        date_trunc($5, hour, 'UTC') AS since,
        CASE WHEN $6 THEN route_id END AS route_id,
        sum(calls)::bigint AS calls,
        sum(calls_completed)::bigint AS calls_completed,
        sum(held_microcredits)::bigint AS held_microcredits,
        sum(charged_microcredits)::bigint AS charged_microcredits,
        sum(uncollected_microcredits)::bigint AS uncollected_microcredits
    FROM usage_routes_hourly
    WHERE platform_id = $1
        AND hour >= from_ms($2)
        AND hour < from_ms($3)
        AND ($7::bigint IS NULL OR route_id = $7)
    GROUP BY 1, 2
    ORDER BY 1, 2
    LIMIT $4
)
SELECT
    to_ms(used.since) AS since_ms,
    NULL::bigint AS account_id,
    used.route_id AS route_id,
    NULL::bigint AS key_id,
    used.calls,
    used.calls_completed,
    used.held_microcredits,
    used.charged_microcredits,
    used.uncollected_microcredits
FROM used
ORDER BY used.since, used.route_id
