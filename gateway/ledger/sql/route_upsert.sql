-- A route keeps its id under its name, so usage stays together over changes.
INSERT INTO routes (platform_id, name, spec, active) VALUES ($1, $2, $3, true)
ON CONFLICT (platform_id, name) DO UPDATE SET spec = excluded.spec, active = true
RETURNING id
