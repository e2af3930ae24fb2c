-- Only one that people describe by the API, and that is sold.
UPDATE packs SET spec = $3
WHERE platform_id = $1 AND slug = $2 AND managed_by = 'api' AND active
RETURNING id
