-- Gone, not only out of use: who deletes a secret wants nobody to have it.
DELETE FROM secrets WHERE platform_id = $1 AND name = $2 RETURNING name
