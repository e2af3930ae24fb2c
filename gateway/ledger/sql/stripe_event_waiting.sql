-- What a job of the queue is about; nothing when it was done, ignored or parked by now.
SELECT
    type,
    coalesce(object_id, '') AS object_id,
    attempts,
    to_ms(created_at) AS created_ms,
    payload
FROM stripe_events
WHERE platform_id = $1
    AND livemode = $2
    AND event_id = $3
    AND status = 'waiting'
