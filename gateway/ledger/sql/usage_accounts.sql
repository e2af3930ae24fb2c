-- What each account of a platform used by $5, day or month, from its days.
WITH used AS (
    SELECT
        date_trunc($5, day, 'UTC') AS since,
        account_id,
        sum(calls)::bigint AS calls,
        sum(calls_completed)::bigint AS calls_completed,
        sum(held_microcredits)::bigint AS held_microcredits,
        sum(charged_microcredits)::bigint AS charged_microcredits,
        sum(uncollected_microcredits)::bigint AS uncollected_microcredits
    FROM usage_accounts_daily
    WHERE platform_id = $1
        AND day >= from_ms($2)
        AND day < from_ms($3)
    GROUP BY 1, 2
    ORDER BY 1, 2
    LIMIT $4
)
SELECT
    to_ms(used.since) AS since_ms,
    used.account_id AS account_id,
    NULL::bigint AS route_id,
    NULL::bigint AS key_id,
    used.calls,
    used.calls_completed,
    used.held_microcredits,
    used.charged_microcredits,
    used.uncollected_microcredits
FROM used
ORDER BY used.since, used.account_id
