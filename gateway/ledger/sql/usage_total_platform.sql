-- What a platform sold since the begin of a day.
SELECT coalesce(sum(calls), 0)::bigint AS calls,
    coalesce(sum(charged_microcredits), 0)::bigint AS charged_microcredits
FROM usage_routes_daily
WHERE platform_id = $1 AND day >= from_ms($2)
