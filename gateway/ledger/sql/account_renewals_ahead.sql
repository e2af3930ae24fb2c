-- Whose period ends soon ($1 ms) and who lacks a lot that the plan gives for the next one, soonest
-- first. Business keys as in periods.py.
SELECT
    accounts.id AS account_id,
    accounts.platform_id,
    accounts.name,
    to_ms(accounts.period_end_at) AS period_end_ms
FROM accounts
JOIN plans ON plans.id = accounts.plan_id
WHERE accounts.period_end_at > now()
    AND accounts.period_end_at <= now() + $1 * interval '1 ms'
    AND accounts.renewed_by = 'clock'
    AND EXISTS (
        SELECT FROM (
            VALUES
                ('plan', plans.spec ->> 'credits_microcredits'),
                ('overage', plans.spec ->> 'overage_cap_microcredits')
        ) AS gives (source, microcredits)
        WHERE coalesce(gives.microcredits, '0') <> '0'
            AND NOT EXISTS (
                SELECT FROM grants
                WHERE grants.business_key = gives.source || ':' || accounts.id || ':'
                    || to_ms(accounts.period_end_at)
            )
    )
ORDER BY accounts.period_end_at, accounts.id
LIMIT $2
