-- A platform's tokens in the order of their making, or those of one account; of no platform: the
-- operators'. With $4 only the one of that id.
SELECT
    api_tokens.id AS token_id,
    api_tokens.platform_id,
    platforms.slug AS platform_slug,
    api_tokens.account_id,
    accounts.name AS account_name,
    api_tokens.role,
    api_tokens.name,
    api_tokens.prefix,
    api_tokens.last4,
    coalesce(to_ms(api_tokens.expires_at), 0) AS expires_ms,
    to_ms(api_tokens.created_at) AS created_ms,
    coalesce(to_ms(api_tokens.revoked_at), 0) AS revoked_ms
FROM api_tokens
LEFT JOIN platforms ON platforms.id = api_tokens.platform_id
LEFT JOIN accounts ON accounts.id = api_tokens.account_id
WHERE api_tokens.platform_id IS NOT DISTINCT FROM $1
    AND ($2::bigint IS NULL OR api_tokens.account_id = $2)
    AND api_tokens.id > $3
    AND ($4::bigint IS NULL OR api_tokens.id = $4)
ORDER BY api_tokens.id
LIMIT $5
