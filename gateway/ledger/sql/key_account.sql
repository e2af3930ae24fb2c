-- Whose a key of the platform is.
SELECT account_id FROM api_keys WHERE platform_id = $1 AND id = $2
