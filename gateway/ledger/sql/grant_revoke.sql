-- A lot ends now, also one that was to begin later; what it has left is withdrawn in Redis then.
-- Idempotent: the first revocation's time stays, and an earlier end.
UPDATE grants SET
    revoked_at = coalesce(revoked_at, now()),
    effective_at = least(effective_at, now() - interval '1 ms'),
    expires_at = least(expires_at, now()),
    closed = false
WHERE id = $1
RETURNING account_id
