-- What accounts with caps were charged, by key and route, in the windows of a moment (UTC). Windows
-- begin with an hour, so the roll-ups are enough.
SELECT
    usage_hourly.account_id,
    key_id,
    route_id,
    coalesce(sum(charged_microcredits)
        FILTER (WHERE hour >= date_trunc('day', from_ms($2), 'UTC')), 0)::bigint AS day,
    coalesce(sum(charged_microcredits)
        FILTER (WHERE hour >= date_trunc('month', from_ms($2), 'UTC')), 0)::bigint AS month,
    coalesce(sum(charged_microcredits), 0)::bigint AS total
FROM accounts
JOIN usage_hourly
    ON usage_hourly.platform_id = accounts.platform_id AND usage_hourly.account_id = accounts.id
WHERE accounts.id = ANY ($1::bigint[])
GROUP BY usage_hourly.account_id, key_id, route_id
