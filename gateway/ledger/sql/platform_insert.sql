-- Nothing when there is one of this slug.
INSERT INTO platforms (slug, name, upgrade_url) VALUES ($1, $2, $3)
ON CONFLICT (slug) DO NOTHING
RETURNING id
