-- Who decides by which subscription an account goes does so alone, as who changes its period or
-- plan (account_period_lock.sql). signup_plan: what it falls back to.
SELECT
    accounts.id AS account_id,
    accounts.platform_id,
    plans.slug AS plan_slug,
    accounts.renewed_by,
    accounts.payment_suspended,
    coalesce(to_ms(accounts.period_start_at), 0) AS start_ms,
    coalesce(to_ms(accounts.period_end_at), 0) AS end_ms,
    fallback.slug AS signup_plan,
    to_ms(now()) AS now_ms
FROM accounts
JOIN platforms ON platforms.id = accounts.platform_id
LEFT JOIN plans ON plans.id = accounts.plan_id
LEFT JOIN plans AS fallback
    ON fallback.platform_id = accounts.platform_id AND fallback.slug = platforms.signup_plan
WHERE accounts.id = $1
FOR NO KEY UPDATE OF accounts
