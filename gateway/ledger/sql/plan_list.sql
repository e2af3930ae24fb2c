-- Plans of a platform by slug.
SELECT id AS plan_id, slug, spec, managed_by FROM plans WHERE platform_id = $1 ORDER BY slug
