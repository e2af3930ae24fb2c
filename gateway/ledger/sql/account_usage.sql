-- What accounts used, by key and route, in the windows that their limits count: this day, this
-- month (UTC), their quota's window from $4 on, and since $3, as far back as the widest of them.
-- From the roll-ups: an hour that a window begins within counts as a whole, so that nobody gets a
-- quota twice. What closed keys used counts as that of the key they were carved from, because that
-- is where what they had left went back to.
WITH RECURSIVE counted (account_id, key_id, counts_as) AS (
    SELECT account_id, id, id
    FROM api_keys
    WHERE account_id = ANY ($1::bigint[]) AND NOT closed
    UNION ALL
    SELECT counted.account_id, child.id, counted.counts_as
    FROM counted
    JOIN api_keys AS child ON child.parent_key_id = counted.key_id
    WHERE child.closed
)
SELECT
    usage_hourly.account_id,
    coalesce(counted.counts_as, usage_hourly.key_id) AS key_id,
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
LEFT JOIN counted
    ON counted.account_id = usage_hourly.account_id AND counted.key_id = usage_hourly.key_id
GROUP BY
    usage_hourly.account_id, coalesce(counted.counts_as, usage_hourly.key_id),
    usage_hourly.route_id
