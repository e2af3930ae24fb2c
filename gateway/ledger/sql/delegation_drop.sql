-- Nothing was carved out for it, so there is nothing to give back.
UPDATE api_keys
SET status = 'revoked', revoked_at = coalesce(revoked_at, now()), closed = true
WHERE id = $1 AND kind = 'delegated'
RETURNING id
