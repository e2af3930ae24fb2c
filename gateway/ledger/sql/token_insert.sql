-- An account's token is its platform's: one of another platform's account is not made.
INSERT INTO api_tokens (platform_id, account_id, role, name, prefix, last4, digest, expires_at)
SELECT $1, $2, $3, $4, $5, $6, $7, from_ms($8)
WHERE $2::bigint IS NULL
    OR EXISTS (SELECT FROM accounts WHERE accounts.platform_id = $1 AND accounts.id = $2)
RETURNING id
