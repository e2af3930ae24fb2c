-- Whose turn it is to be reconciled, by one node: a platform with Stripe that had none for a while.
INSERT INTO stripe_cursors AS cursor (platform_id, livemode, name, at)
SELECT settings.platform_id, settings.livemode, 'turn', now()
FROM stripe_settings AS settings
LEFT JOIN stripe_cursors AS turn
    ON turn.platform_id = settings.platform_id
    AND turn.livemode = settings.livemode
    AND turn.name = 'turn'
WHERE turn.at IS NULL OR turn.at < now() - $1 * interval '1 ms'
ORDER BY turn.at NULLS FIRST
LIMIT 1
ON CONFLICT (platform_id, livemode, name) DO UPDATE
SET at = excluded.at
WHERE cursor.at < now() - $1 * interval '1 ms'
RETURNING platform_id
