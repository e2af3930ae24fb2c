-- Idempotent: the first revocation's time stays. The platform guards against foreign ids.
UPDATE api_keys SET status = 'revoked', revoked_at = coalesce(revoked_at, now())
WHERE platform_id = $1 AND id = $2
RETURNING account_id
