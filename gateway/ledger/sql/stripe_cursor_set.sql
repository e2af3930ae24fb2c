-- A reconciler has looked so far; never back.
INSERT INTO stripe_cursors AS cursor (platform_id, livemode, name, at)
VALUES ($1, $2, $3, from_ms($4))
ON CONFLICT (platform_id, livemode, name) DO UPDATE
SET at = excluded.at
WHERE cursor.at < excluded.at
