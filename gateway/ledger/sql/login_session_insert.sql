-- A login: what it may do is asked of its token, each time.
INSERT INTO login_sessions (id, token_id, refresh_digest, expires_at)
VALUES ($1, $2, $3, from_ms($4))
RETURNING token_id
