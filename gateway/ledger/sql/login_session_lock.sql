-- Of two who refresh a session at once, the second sees what the first did. "alive" as in
-- login_session_find.sql.
SELECT
    login_sessions.token_id,
    login_sessions.refresh_digest,
    to_ms(login_sessions.expires_at) AS expires_ms,
    login_sessions.revoked_at IS NULL
        AND login_sessions.expires_at > now()
        AND api_tokens.revoked_at IS NULL
        AND coalesce(api_tokens.expires_at > now(), true) AS alive
FROM login_sessions
JOIN api_tokens ON api_tokens.id = login_sessions.token_id
WHERE login_sessions.id = $1
FOR UPDATE OF login_sessions
