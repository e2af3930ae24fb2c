-- Subscriptions ($4: of an account) that another one has taken the place of and that still are
-- live.
SELECT stripe_id, to_ms(now()) AS now_ms
FROM subscriptions
WHERE platform_id = $1
    AND livemode = $2
    AND superseded_by IS NOT NULL
    AND status IN ('trialing', 'active', 'past_due')
    AND ($4::bigint IS NULL OR account_id = $4)
ORDER BY id
LIMIT $3
