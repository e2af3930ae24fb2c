-- A key's guards bind what is delegated from it, too: whoever has checked any of these reads anew.
WITH RECURSIVE family AS (
    SELECT id, account_id FROM api_keys WHERE id = $1
    UNION ALL
    SELECT child.id, child.account_id
    FROM family
    JOIN api_keys AS child
        ON child.account_id = family.account_id AND child.parent_key_id = family.id
    WHERE child.kind = 'delegated' AND NOT child.closed AND child.status = 'active'
)
UPDATE api_keys SET guard_version = guard_version + 1
FROM family WHERE api_keys.id = family.id
