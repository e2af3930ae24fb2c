-- A page of what is delegated from a key, along the index.
SELECT id AS key_id
FROM api_keys
WHERE platform_id = $1 AND parent_key_id = $2 AND id > $3
ORDER BY parent_key_id, id
LIMIT $4
