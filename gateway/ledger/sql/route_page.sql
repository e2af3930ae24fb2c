-- Routes of a platform by name with the price version in force, from behind one on: in service
-- ($3 true), out of it (false), or both (NULL); or with $4 only the one of that name.
SELECT
    routes.id AS route_id,
    routes.platform_id,
    routes.name,
    routes.active,
    routes.managed_by,
    routes.spec,
    routes.price_version_id,
    price_versions.spec AS price
FROM routes
LEFT JOIN price_versions ON price_versions.id = routes.price_version_id
WHERE routes.platform_id = $1
    AND ($2::text IS NULL OR routes.name > $2)
    AND ($3::boolean IS NULL OR routes.active = $3)
    AND ($4::text IS NULL OR routes.name = $4)
ORDER BY routes.name
LIMIT $5
