-- What accounts with caps were charged, by key and route, in the windows of a moment (UTC). Windows
-- begin with an hour, so the roll-ups are enough. A closed key's counts as that of the one it was
-- carved out of, whose counter has taken it over.
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
    route_id,
    coalesce(sum(charged_microcredits)
        FILTER (WHERE hour >= date_trunc('day', from_ms($2), 'UTC')), 0)::bigint AS day,
    coalesce(sum(charged_microcredits)
        FILTER (WHERE hour >= date_trunc('month', from_ms($2), 'UTC')), 0)::bigint AS month,
    coalesce(sum(charged_microcredits), 0)::bigint AS total
FROM accounts
JOIN usage_hourly
    ON usage_hourly.platform_id = accounts.platform_id AND usage_hourly.account_id = accounts.id
LEFT JOIN counted
    ON counted.account_id = usage_hourly.account_id AND counted.key_id = usage_hourly.key_id
WHERE accounts.id = ANY ($1::bigint[])
GROUP BY
    usage_hourly.account_id, coalesce(counted.counts_as, usage_hourly.key_id),
    usage_hourly.route_id
