-- How far a reconciler has looked.
SELECT to_ms(at)
FROM stripe_cursors
WHERE platform_id = $1 AND livemode = $2 AND name = $3
