-- Usage for people, from the roll-ups: a report over years reads hours, never calls. What is not
-- asked to be told apart ($5 account, $6 route, $7 key, $8 a unit of time or '') comes back as
-- NULL. Whole hours only.
SELECT
    CASE WHEN $8 <> '' THEN to_ms(date_trunc(nullif($8, ''), usage_hourly.hour, 'UTC')) END
        AS since_ms,
    CASE WHEN $5 THEN accounts.name END AS account_name,
    CASE WHEN $6 THEN routes.name END AS route_name,
    CASE WHEN $7 THEN usage_hourly.key_id END AS key_id,
    sum(usage_hourly.calls)::bigint AS calls,
    sum(usage_hourly.calls_completed)::bigint AS calls_completed,
    sum(usage_hourly.charged_microcredits)::bigint AS charged_microcredits,
    sum(usage_hourly.uncollected_microcredits)::bigint AS uncollected_microcredits
FROM usage_hourly
LEFT JOIN accounts ON accounts.id = usage_hourly.account_id
LEFT JOIN routes ON routes.id = usage_hourly.route_id
WHERE usage_hourly.platform_id = $1
    AND ($2::bigint IS NULL OR usage_hourly.account_id = $2)
    AND usage_hourly.hour >= date_trunc('hour', from_ms($3), 'UTC')
    AND usage_hourly.hour < from_ms($4)
GROUP BY 1, 2, 3, 4
ORDER BY 1, 2, 3, 4
LIMIT $9
