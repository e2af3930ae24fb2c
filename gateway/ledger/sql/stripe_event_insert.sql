-- Keep events, each once, and say which are to be worked on. One that nobody had a use for when it
-- came, and somebody has by now, waits from now on.
INSERT INTO stripe_events AS kept (
    platform_id, livemode, event_id, type, object_id, shape, source, payload, status, created_at,
    done_at
)
SELECT
    $1::bigint,
    $2::boolean,
    new.event_id,
    new.type,
    new.object_id,
    new.shape,
    new.source,
    new.payload::jsonb,
    new.status,
    from_ms(new.created_ms),
    CASE WHEN new.status = 'ignored' THEN now() END
FROM unnest(
    $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
    $10::bigint[]
) AS new (event_id, type, object_id, shape, source, payload, status, created_ms)
ORDER BY new.event_id
ON CONFLICT (platform_id, livemode, event_id) DO UPDATE
SET status = 'waiting', done_at = NULL
WHERE kept.status = 'ignored' AND excluded.status = 'waiting'
RETURNING event_id, status
