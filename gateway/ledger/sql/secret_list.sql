-- What a platform has, by name; never the values. With $2 only the one of that name.
SELECT name, to_ms(created_at) AS created_ms, to_ms(updated_at) AS updated_ms
FROM secrets
WHERE platform_id = $1 AND ($2::text IS NULL OR name = $2)
ORDER BY name
