-- Plans of a platform, as `apply` left them.
SELECT id AS plan_id, slug, spec FROM plans WHERE platform_id = $1 ORDER BY slug
