-- Prices are never changed, only superseded.
INSERT INTO price_versions (route_id, spec) VALUES ($1, $2) RETURNING id
