-- Accounts whose period is over and that a subscription renews. is_stale: so is the subscription's
-- own, for so long ($3 ms) that an event about it must have been lost. Those that need nobody but
-- us come first.
SELECT
    accounts.id AS account_id,
    subscriptions.stripe_id,
    subscriptions.period_end_at <= now() AS is_over,
    subscriptions.period_end_at <= now() - $3 * interval '1 ms' AS is_stale
FROM accounts
JOIN subscriptions ON subscriptions.account_id = accounts.id AND subscriptions.serves
WHERE accounts.platform_id = $1
    AND subscriptions.livemode = $2
    AND accounts.renewed_by = 'subscription'
    AND accounts.period_end_at <= now()
ORDER BY 3, accounts.period_end_at, accounts.id
LIMIT $4
