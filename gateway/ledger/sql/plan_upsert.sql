-- A plan keeps its id, so accounts follow a changed plan at once.
INSERT INTO plans (platform_id, slug, spec) VALUES ($1, $2, $3)
ON CONFLICT (platform_id, slug) DO UPDATE SET spec = excluded.spec
