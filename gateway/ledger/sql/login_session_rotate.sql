-- A refresh token is good for one refresh; here is the next.
UPDATE login_sessions SET refresh_digest = $2 WHERE id = $1 RETURNING id
