-- First writer wins: facts such as the shard count may never change once data lives by them.
WITH fixed AS (
    INSERT INTO settings (name, value) VALUES ($1, $2)
    ON CONFLICT (name) DO NOTHING
    RETURNING value
)
SELECT value FROM fixed
UNION ALL
SELECT value FROM settings WHERE name = $1
LIMIT 1
