-- Leaves first: what an open part has used, its whole has used.
UPDATE api_keys SET closed = true
WHERE id = $1 AND kind = 'delegated' AND least(expires_at, revoked_at) <= now()
    AND NOT EXISTS (
        SELECT FROM api_keys AS child
        WHERE child.account_id = api_keys.account_id AND child.parent_key_id = api_keys.id
            AND child.kind = 'delegated' AND NOT child.closed
    )
RETURNING id
