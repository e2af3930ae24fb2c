-- The billing period of an account, which may be over and not renewed yet; 0: it has none.
SELECT coalesce(to_ms(period_start_at), 0) AS start_ms, coalesce(to_ms(period_end_at), 0) AS end_ms
FROM accounts
WHERE platform_id = $1 AND id = $2
