-- What the admit script needs of an account besides its keys and lots. The month's count is rebuilt
-- from settled calls: calls refused or voided never counted, calls still running are not known
-- here.
SELECT
    accounts.status,
    coalesce((plans.spec ->> 'requests_per_minute')::bigint, 0) AS rpm,
    coalesce((plans.spec ->> 'requests_per_month')::bigint, 0) AS rpmonth,
    coalesce((plans.spec ->> 'concurrency')::bigint, 0) AS conc,
    to_char(now() AT TIME ZONE 'UTC', 'YYYYMM')::bigint AS month,
    CASE WHEN coalesce((plans.spec ->> 'requests_per_month')::bigint, 0) = 0 THEN 0 ELSE (
        SELECT coalesce(sum(usage_hourly.calls), 0)::bigint
        FROM usage_hourly
        WHERE usage_hourly.platform_id = accounts.platform_id
            AND usage_hourly.account_id = accounts.id
            AND usage_hourly.hour >= date_trunc('month', now(), 'UTC')
    ) END AS count
FROM accounts
LEFT JOIN plans ON plans.id = accounts.plan_id
WHERE accounts.id = $1
