-- Routes of one platform (or of all: NULL) with the price version in force.
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
WHERE $1::bigint IS NULL OR routes.platform_id = $1
ORDER BY routes.platform_id, routes.name
