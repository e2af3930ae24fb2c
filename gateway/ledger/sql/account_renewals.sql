-- Whose period is over, longest first; of those whom the clock renews, and no subscription.
SELECT
    accounts.id AS account_id,
    accounts.platform_id,
    accounts.name,
    to_ms(accounts.period_end_at) AS period_end_ms
FROM accounts
WHERE accounts.period_end_at <= coalesce(from_ms($1), now())
    AND accounts.plan_id IS NOT NULL
    AND accounts.renewed_by = 'clock'
ORDER BY accounts.period_end_at, accounts.id
LIMIT $2
