-- By which subscription an account's overage is billed: the one that serves, else the last it had.
SELECT
    stripe_id, customer_id, status, currency, product_id,
    coalesce(to_ms(period_end_at), 0) AS period_end_ms,
    cancel_at IS NOT NULL AS ends,
    to_ms(now()) AS now_ms
FROM subscriptions
WHERE account_id = $1 AND livemode = $2
ORDER BY serves DESC, started_at DESC, id DESC
LIMIT 1
