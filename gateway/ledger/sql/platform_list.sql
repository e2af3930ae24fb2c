-- The tenants of this deployment.
SELECT id AS platform_id, slug, name, upgrade_url FROM platforms ORDER BY slug
