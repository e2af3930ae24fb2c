-- What one account used, from its hours: told apart by route ($6) and key ($7) or not, of one route
-- ($8) or key ($9) or all; $5 is hour, day or month.
WITH used AS (
    SELECT
        date_trunc($5, hour, 'UTC') AS since,
        CASE WHEN $6 THEN route_id END AS route_id,
        CASE WHEN $7 THEN key_id END AS key_id,
        sum(calls)::bigint AS calls,
        sum(calls_completed)::bigint AS calls_completed,
        sum(held_microcredits)::bigint AS held_microcredits,
        sum(charged_microcredits)::bigint AS charged_microcredits,
        sum(uncollected_microcredits)::bigint AS uncollected_microcredits
    FROM usage_hourly
    WHERE platform_id = $1
        AND account_id = $10
        AND hour >= from_ms($2)
        AND hour < from_ms($3)
        AND ($8::bigint IS NULL OR route_id = $8)
        AND ($9::bigint IS NULL OR key_id = $9)
    GROUP BY 1, 2, 3
    ORDER BY 1, 2, 3
    LIMIT $4
)
SELECT
    to_ms(used.since) AS since_ms,
    $10::bigint AS account_id,
    used.route_id AS route_id,
    used.key_id AS key_id,
    used.calls,
    used.calls_completed,
    used.held_microcredits,
    used.charged_microcredits,
    used.uncollected_microcredits
FROM used
ORDER BY used.since, used.route_id, used.key_id
