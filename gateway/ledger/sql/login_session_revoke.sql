-- By who logged out, or because two showed one refresh token. Idempotent.
UPDATE login_sessions SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1 RETURNING id
