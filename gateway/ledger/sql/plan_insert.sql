-- Nothing when there is one of this slug.
INSERT INTO plans (platform_id, slug, spec, managed_by) VALUES ($1, $2, $3, $4)
ON CONFLICT (platform_id, slug) DO NOTHING
RETURNING id
