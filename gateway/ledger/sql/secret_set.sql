-- A new secret, or another value of one. The API may write "sealed" and not read it, so it is
-- given here again rather than taken from "excluded".
INSERT INTO secrets (platform_id, name, sealed) VALUES ($1, $2, $3)
ON CONFLICT (platform_id, name) DO UPDATE SET sealed = $3, updated_at = now()
RETURNING name
