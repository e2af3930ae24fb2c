-- A platform's events, newest first by when they came, behind one of them. At most $4 rows are
-- looked at: the last one of so many comes back even if it does not match, to say where to go on.
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
    matches,
    place
FROM (
    SELECT
        stripe_events.*,
        row_number() OVER (ORDER BY received_at DESC, event_id DESC) AS place
    FROM stripe_events
    WHERE platform_id = $1
        AND (received_at, event_id)
        < ('epoch'::timestamptz + $2 * interval '1 microsecond', $3::text)
    ORDER BY received_at DESC, event_id DESC
    LIMIT $4::bigint
) AS looked
CROSS JOIN LATERAL (
    SELECT ($6::text IS NULL OR status = $6)
        AND ($7::text IS NULL OR type = $7)
        AND ($8::text IS NULL OR object_id = $8) AS matches
) AS judged
WHERE matches OR place = $4::bigint
ORDER BY received_at DESC, event_id DESC
LIMIT $5
