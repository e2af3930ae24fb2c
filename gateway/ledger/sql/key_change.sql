-- What people decide of a key, as a whole. Other guards are of another version: key_guards_renew.
UPDATE api_keys SET name = $3, expires_at = from_ms($4), spec = $5, metadata = $6
WHERE platform_id = $1 AND id = $2
