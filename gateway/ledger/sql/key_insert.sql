-- The platform comes from the account: a key cannot belong to another tenant than its account.
INSERT INTO api_keys (
    platform_id, account_id, name, prefix, last4, pepper_version, digest, expires_at, spec,
    metadata, guard_version
)
SELECT platform_id, id, $2, $3, $4, $5, $6, from_ms($7), $8, $9, $10
FROM accounts WHERE id = $1
RETURNING id
