-- What is over and may still count in its parent: leaves first, for a part is newer than its whole.
SELECT
    id AS key_id,
    platform_id,
    account_id,
    parent_key_id,
    to_ms(now()) - to_ms(least(expires_at, revoked_at)) AS ended_ms
FROM api_keys
WHERE kind = 'delegated' AND NOT closed AND least(expires_at, revoked_at) <= now()
    AND ($1::bigint IS NULL OR id < $1)
ORDER BY id DESC
LIMIT $2
