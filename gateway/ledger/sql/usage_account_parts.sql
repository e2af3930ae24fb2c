-- What one account used by $5, day or month, told apart by its keys or else by its routes ($6), or
-- of one of them ($7), from its days.
WITH used AS (
    SELECT
        date_trunc($5, day, 'UTC') AS since,
        CASE WHEN $8 THEN part_id END AS part_id,
        sum(calls)::bigint AS calls,
        sum(calls_completed)::bigint AS calls_completed,
        sum(held_microcredits)::bigint AS held_microcredits,
        sum(charged_microcredits)::bigint AS charged_microcredits,
        sum(uncollected_microcredits)::bigint AS uncollected_microcredits
    FROM usage_parts_daily
    WHERE platform_id = $1
        AND account_id = $9
        AND day >= from_ms($2)
        AND day < from_ms($3)
        AND is_key = $6
        AND ($7::bigint IS NULL OR part_id = $7)
    GROUP BY 1, 2
    ORDER BY 1, 2
    LIMIT $4
)
SELECT
    to_ms(used.since) AS since_ms,
    $9::bigint AS account_id,
    CASE WHEN NOT $6 THEN used.part_id END AS route_id,
    CASE WHEN $6 THEN used.part_id END AS key_id,
    used.calls,
    used.calls_completed,
    used.held_microcredits,
    used.charged_microcredits,
    used.uncollected_microcredits
FROM used
ORDER BY used.since, used.part_id
