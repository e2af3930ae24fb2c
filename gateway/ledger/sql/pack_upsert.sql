-- A pack keeps its id. Who describes it last manages it.
INSERT INTO packs (platform_id, slug, spec, managed_by, active) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (platform_id, slug) DO UPDATE SET
    spec = excluded.spec, managed_by = excluded.managed_by, active = excluded.active
