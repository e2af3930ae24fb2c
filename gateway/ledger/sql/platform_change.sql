-- The slug stays: clients and settings name it.
UPDATE platforms SET name = $2, upgrade_url = $3 WHERE id = $1 RETURNING slug
