-- Roll-ups are the sums of their settlements, per hour, account, route and key. Answers what
-- disagrees.
SELECT
    account_id,
    route_id,
    key_id,
    to_ms(hour) AS hour_ms,
    coalesce(raw.calls, 0) AS calls,
    coalesce(usage_hourly.calls, 0) AS calls_rolled,
    coalesce(raw.charged, 0) AS charged_microcredits,
    coalesce(usage_hourly.charged_microcredits, 0) AS charged_rolled_microcredits
FROM usage_hourly
FULL JOIN (
    SELECT
        platform_id, account_id, date_trunc('hour', settled_at, 'UTC') AS hour, route_id, key_id,
        count(*) AS calls,
        count(*) FILTER (WHERE ending = 'completed') AS completed,
        sum(held_microcredits)::bigint AS held,
        sum(charged_microcredits)::bigint AS charged,
        sum(uncollected_microcredits)::bigint AS uncollected
    FROM settlements
    GROUP BY 1, 2, 3, 4, 5
) AS raw USING (platform_id, account_id, hour, route_id, key_id)
WHERE raw.calls IS DISTINCT FROM usage_hourly.calls
    OR raw.completed IS DISTINCT FROM usage_hourly.calls_completed
    OR raw.held IS DISTINCT FROM usage_hourly.held_microcredits
    OR raw.charged IS DISTINCT FROM usage_hourly.charged_microcredits
    OR raw.uncollected IS DISTINCT FROM usage_hourly.uncollected_microcredits
ORDER BY account_id, route_id, key_id, hour
LIMIT $1
