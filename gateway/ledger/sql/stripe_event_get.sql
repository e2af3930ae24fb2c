-- One event with all that came of it. Ids are Stripe's: no two modes have the same.
SELECT
    platform_id,
    livemode,
    event_id,
    type,
    coalesce(object_id, '') AS object_id,
    shape,
    source,
    status,
    attempts,
    coalesce(problem, '') AS problem,
    to_ms(created_at) AS created_ms,
    (extract(epoch FROM received_at) * 1000000)::bigint AS received_us,
    coalesce(to_ms(done_at), 0) AS done_ms,
    payload
FROM stripe_events
WHERE platform_id = $1
    AND livemode IN (FALSE, TRUE)
    AND event_id = $2
ORDER BY received_at DESC
LIMIT 1
