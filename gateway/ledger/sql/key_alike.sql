-- Keys by what is shown of them, as many as are told: the others never leave Postgres.
SELECT id AS key_id
FROM api_keys
WHERE platform_id = $1 AND prefix = $2 AND ($3::text IS NULL OR last4 = $3)
ORDER BY id
LIMIT $4
