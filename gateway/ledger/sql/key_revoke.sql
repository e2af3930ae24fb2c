-- Idempotent: the first revocation's time stays. What is delegated from the key ends with it, but
-- for what was over before.
WITH RECURSIVE family AS (
    SELECT id, account_id FROM api_keys WHERE id = $1
    UNION ALL
    SELECT child.id, child.account_id
    FROM family
    JOIN api_keys AS child
        ON child.account_id = family.account_id AND child.parent_key_id = family.id
    WHERE child.kind = 'delegated' AND NOT child.closed
)
UPDATE api_keys SET status = 'revoked', revoked_at = now()
FROM family
WHERE api_keys.id = family.id AND api_keys.status = 'active'
    AND (api_keys.id = $1 OR api_keys.expires_at > now())
