-- No row: the name is taken, or the plan does not exist on this platform.
INSERT INTO accounts (platform_id, name, plan_id)
SELECT $1, $2, (SELECT id FROM plans WHERE platform_id = $1 AND slug = $3)
WHERE $3::text IS NULL OR EXISTS (SELECT FROM plans WHERE platform_id = $1 AND slug = $3)
ON CONFLICT (platform_id, name) DO NOTHING
RETURNING id
