-- Only one that people describe by the API: the config's file would make it otherwise again.
UPDATE plans SET spec = $3 WHERE platform_id = $1 AND slug = $2 AND managed_by = 'api' RETURNING id
