-- Platform and account are the parent's: a key can't be a part of another tenant's.
INSERT INTO api_keys (
    platform_id, account_id, kind, parent_key_id, name, prefix, last4, pepper_version, digest,
    budget_microcredits, expires_at, spec, metadata, guard_version
)
SELECT platform_id, account_id, 'delegated', id, $2, $3, $4, $5, $6, $7, from_ms($8), $9, $10, $11
FROM api_keys WHERE id = $1
RETURNING id
