-- A key of an account and what it is delegated from, itself first.
WITH RECURSIVE lineage AS (
    SELECT 0 AS level, id, platform_id, parent_key_id
    FROM api_keys WHERE account_id = $1 AND id = $2
    UNION ALL
    SELECT lineage.level + 1, parent.id, parent.platform_id, parent.parent_key_id
    FROM lineage JOIN api_keys AS parent ON parent.id = lineage.parent_key_id
)
SELECT id AS key_id, platform_id, to_ms(now()) AS now_ms FROM lineage ORDER BY level
