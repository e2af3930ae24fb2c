-- Idempotent: the first revocation's time stays. Sessions begun with it are over, for they ask.
UPDATE api_tokens SET revoked_at = coalesce(revoked_at, now())
WHERE platform_id IS NOT DISTINCT FROM $1
    AND ($2::bigint IS NULL OR account_id = $2)
    AND id = $3
RETURNING id
