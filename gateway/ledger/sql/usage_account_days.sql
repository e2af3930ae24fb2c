-- What one account used by $5, day or month, from its days. They are named one by one: in the index
-- a day's accounts follow each other, and a range of days would read those of all accounts.
WITH used AS (
    SELECT
        date_trunc($5, day, 'UTC') AS since,
        sum(calls)::bigint AS calls,
        sum(calls_completed)::bigint AS calls_completed,
        sum(held_microcredits)::bigint AS held_microcredits,
        sum(charged_microcredits)::bigint AS charged_microcredits,
        sum(uncollected_microcredits)::bigint AS uncollected_microcredits
    FROM usage_accounts_daily
    WHERE platform_id = $1
        AND account_id = $6
        AND day = ANY (ARRAY(
            SELECT generate_series(from_ms($2), from_ms($3) - interval '1 day', interval '1 day')
        ))
    GROUP BY 1
    ORDER BY 1
    LIMIT $4
)
SELECT
    to_ms(used.since) AS since_ms,
    $6::bigint AS account_id,
    NULL::bigint AS route_id,
    NULL::bigint AS key_id,
    used.calls,
    used.calls_completed,
    used.held_microcredits,
    used.charged_microcredits,
    used.uncollected_microcredits
FROM used
ORDER BY used.since
