-- What an account was or is to be told of, oldest first.
SELECT
    id AS event_id, platform_id, account_id, kind, detail, to_ms(created_at) AS created_ms,
    coalesce(to_ms(delivered_at), 0) AS delivered_ms
FROM account_events
WHERE account_id = $1
ORDER BY id
