-- What an account used since a moment, whose hour counts as a whole: the hours of that day, and the
-- days after it.
SELECT coalesce(sum(calls), 0)::bigint AS calls,
    coalesce(sum(charged_microcredits), 0)::bigint AS charged_microcredits
FROM (
    SELECT calls, charged_microcredits
    FROM usage_hourly
    WHERE platform_id = $1
        AND account_id = $2
        AND hour >= date_trunc('hour', from_ms($3), 'UTC')
        AND hour < date_trunc('day', from_ms($3), 'UTC') + interval '1 day'
    UNION ALL
    SELECT calls, charged_microcredits
    FROM usage_accounts_daily
    WHERE platform_id = $1
        AND account_id = $2
        AND day = ANY (ARRAY(
            SELECT generate_series(
                date_trunc('day', from_ms($3), 'UTC') + interval '1 day',
                from_ms($4),
                interval '1 day'
            )
        ))
) AS used
