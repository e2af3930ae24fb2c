-- Platforms of the deployment by slug, from behind one on; or with $2 only the one of that slug.
SELECT
    id AS platform_id,
    slug,
    name,
    upgrade_url,
    signup_plan,
    trial_microcredits,
    trial_days,
    to_ms(created_at) AS created_ms
FROM platforms
WHERE ($1::text IS NULL OR slug > $1) AND ($2::text IS NULL OR slug = $2)
ORDER BY slug
LIMIT $3
