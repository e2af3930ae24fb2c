-- Prices are never changed, only superseded. The platform is the route's.
INSERT INTO price_versions (route_id, platform_id, spec)
SELECT id, platform_id, $2 FROM routes WHERE id = $1
RETURNING id
