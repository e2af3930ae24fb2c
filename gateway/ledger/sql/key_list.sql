-- Keys of a platform by their ids, for display.
SELECT
    api_keys.id AS key_id,
    api_keys.account_id,
    accounts.name AS account_name,
    api_keys.kind,
    api_keys.parent_key_id,
    api_keys.budget_microcredits,
    api_keys.name,
    api_keys.prefix,
    api_keys.last4,
    api_keys.status,
    coalesce(to_ms(api_keys.expires_at), 0) AS expires_ms,
    to_ms(api_keys.created_at) AS created_ms,
    coalesce(to_ms(api_keys.revoked_at), 0) AS revoked_ms,
    api_keys.spec,
    api_keys.guard_version,
    api_keys.metadata
FROM api_keys
JOIN accounts ON accounts.id = api_keys.account_id
WHERE api_keys.id = ANY ($2::bigint[]) AND api_keys.platform_id = $1
ORDER BY api_keys.id
