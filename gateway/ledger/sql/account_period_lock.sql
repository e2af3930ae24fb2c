-- Who changes an account's period or plan does so alone. Settling does not wait for this.
SELECT
    accounts.id AS account_id,
    accounts.platform_id,
    plans.slug AS plan_slug,
    plans.spec AS plan,
    coalesce(to_ms(accounts.period_anchor_at), 0) AS anchor_ms,
    coalesce(to_ms(accounts.period_start_at), 0) AS start_ms,
    coalesce(to_ms(accounts.period_end_at), 0) AS end_ms,
    accounts.renewed_by,
    to_ms(now()) AS now_ms
FROM accounts
LEFT JOIN plans ON plans.id = accounts.plan_id
WHERE accounts.id = $1
FOR NO KEY UPDATE OF accounts
