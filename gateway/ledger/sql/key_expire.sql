-- A rotated key works on for a while; an earlier end stays.
UPDATE api_keys SET expires_at = least(expires_at, from_ms($3))
WHERE platform_id = $1 AND id = $2
RETURNING account_id
