-- Narrower limits of one key; one row if the platform has it.
UPDATE api_keys SET spec = $3 WHERE platform_id = $1 AND id = $2 RETURNING account_id
