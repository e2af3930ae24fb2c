-- The token behind a session, while both are good. Asked on every request of who logged in.
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
FROM login_sessions
JOIN api_tokens ON api_tokens.id = login_sessions.token_id
LEFT JOIN platforms ON platforms.id = api_tokens.platform_id
LEFT JOIN accounts ON accounts.id = api_tokens.account_id
WHERE login_sessions.id = $1
    AND login_sessions.revoked_at IS NULL
    AND login_sessions.expires_at > now()
    AND api_tokens.revoked_at IS NULL
    AND coalesce(api_tokens.expires_at > now(), true)
