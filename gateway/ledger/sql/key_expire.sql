-- A rotated key works on for a while; an earlier end stays.
UPDATE api_keys SET expires_at = least(expires_at, from_ms($2)) WHERE id = $1 RETURNING id
