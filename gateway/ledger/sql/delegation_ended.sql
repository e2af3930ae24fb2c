-- What is over and may still count in its parent: leaves first, for a part is newer than its whole.
SELECT
    id AS key_id,
    platform_id,
    account_id,
    EXISTS (
        SELECT FROM api_keys AS child
        WHERE child.account_id = api_keys.account_id AND child.parent_key_id = api_keys.id
            AND child.kind = 'delegated' AND NOT child.closed
    ) AS has_open_children
FROM api_keys
WHERE kind = 'delegated' AND NOT closed AND least(expires_at, revoked_at) <= now()
    AND ($1::bigint IS NULL OR id < $1)
ORDER BY id DESC
LIMIT $2
