-- What accounts used, by key and route, in the windows that their limits count: this day, this
-- month (UTC), their quota's window from $4 on, and since $3, as far back as the widest of them.
-- From the roll-ups: an hour that a window begins within counts as a whole, so that nobody gets a
-- quota twice.
SELECT
    usage_hourly.account_id,
    usage_hourly.key_id,
    usage_hourly.route_id,
    coalesce(sum(charged_microcredits)
        FILTER (WHERE hour >= date_trunc('day', now(), 'UTC')), 0)::bigint AS spent_day,
    coalesce(sum(charged_microcredits)
        FILTER (WHERE hour >= date_trunc('month', now(), 'UTC')), 0)::bigint AS spent_month,
    sum(charged_microcredits)::bigint AS spent_total,
    coalesce(sum(calls)
        FILTER (WHERE hour >= date_trunc('month', now(), 'UTC')), 0)::bigint AS calls_month,
    coalesce(sum(calls)
        FILTER (WHERE hour >= date_trunc('hour', from_ms(wanted.quota_ms), 'UTC')), 0)::bigint
        AS calls_quota
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])
    AS wanted (account_id, platform_id, since_ms, quota_ms)
JOIN usage_hourly
    ON usage_hourly.platform_id = wanted.platform_id
    AND usage_hourly.account_id = wanted.account_id
    AND usage_hourly.hour >= date_trunc('hour', from_ms(wanted.since_ms), 'UTC')
GROUP BY usage_hourly.account_id, usage_hourly.key_id, usage_hourly.route_id
