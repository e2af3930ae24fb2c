-- A worker's miss on a key: everything that identifies the caller, in one look-up by digest, and
-- what ancestors allow, of the same instant: a key is over when one of them is. A closed key is
-- none any more: Redis is not told of it either.
WITH RECURSIVE lineage AS (
    SELECT 0 AS level, parent_key_id, spec, status, expires_at FROM api_keys WHERE digest = $1
    UNION ALL
    SELECT
        lineage.level + 1, parent.parent_key_id, parent.spec, parent.status, parent.expires_at
    FROM lineage JOIN api_keys AS parent ON parent.id = lineage.parent_key_id
)
SELECT
    api_keys.id AS key_id,
    api_keys.name AS key_name,
    (
        SELECT CASE WHEN bool_and(lineage.status = 'active') THEN 'active' ELSE 'revoked' END
        FROM lineage
    ) AS key_status,
    coalesce(to_ms((SELECT min(lineage.expires_at) FROM lineage)), 0) AS expires_ms,
    api_keys.digest,
    accounts.id AS account_id,
    accounts.name AS account_name,
    CASE WHEN accounts.payment_suspended THEN 'suspended' ELSE accounts.status END
        AS account_status,
    platforms.id AS platform_id,
    platforms.slug AS platform_slug,
    coalesce(
        accounts.discount_basis_points, (plans.spec ->> 'discount_basis_points')::integer, 0
    ) AS discount,
    api_keys.kind,
    (SELECT jsonb_agg(lineage.spec ORDER BY lineage.level) FROM lineage) AS specs,
    api_keys.guard_version
FROM api_keys
JOIN accounts ON accounts.id = api_keys.account_id
LEFT JOIN plans ON plans.id = accounts.plan_id
JOIN platforms ON platforms.id = accounts.platform_id
WHERE api_keys.digest = $1 AND NOT api_keys.closed
