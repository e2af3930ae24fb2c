-- People and config name a platform by its slug.
SELECT id AS platform_id, slug, name, upgrade_url FROM platforms WHERE slug = $1
