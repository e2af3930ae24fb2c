-- Packs of a platform by slug, from behind one on; or with $3 only the one of that slug. $5: only
-- those that are sold.
SELECT id AS pack_id, slug, spec, active, managed_by
FROM packs
WHERE platform_id = $1
    AND ($2::text IS NULL OR slug > $2)
    AND ($3::text IS NULL OR slug = $3)
    AND (active OR NOT $5)
ORDER BY slug
LIMIT $4
