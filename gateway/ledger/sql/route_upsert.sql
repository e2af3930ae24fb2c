-- A route keeps its id under its name, so usage stays together over changes. Who describes it last
-- manages it.
INSERT INTO routes (platform_id, name, spec, active, managed_by) VALUES ($1, $2, $3, true, $4)
ON CONFLICT (platform_id, name)
    DO UPDATE SET spec = excluded.spec, active = true, managed_by = excluded.managed_by
RETURNING id
