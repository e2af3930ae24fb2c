-- Plans of a platform by slug, from behind one on; or with $3 only the one of that slug.
SELECT id AS plan_id, slug, spec, managed_by
FROM plans
WHERE platform_id = $1
    AND ($2::text IS NULL OR slug > $2)
    AND ($3::text IS NULL OR slug = $3)
ORDER BY slug
LIMIT $4
