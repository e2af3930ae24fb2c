-- A plan keeps its id, so accounts follow a changed plan at once. Who describes it last manages it.
INSERT INTO plans (platform_id, slug, spec, managed_by) VALUES ($1, $2, $3, $4)
ON CONFLICT (platform_id, slug)
    DO UPDATE SET spec = excluded.spec, managed_by = excluded.managed_by
