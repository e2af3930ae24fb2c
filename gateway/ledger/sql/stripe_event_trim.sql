-- Events that are over are kept for some time, a page at a time, so that no statement holds many
-- locks for long. What waits, or is parked, stays.
WITH old AS (
    SELECT event.platform_id, event.livemode, event.event_id
    FROM platforms
    CROSS JOIN LATERAL (
        SELECT platform_id, livemode, event_id
        FROM stripe_events
        WHERE platform_id = platforms.id
            AND received_at < now() - $1 * interval '1 ms'
            AND status IN ('done', 'ignored')
        ORDER BY received_at
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    ) AS event
    LIMIT $2
),

deleted AS (
    DELETE FROM stripe_events
    WHERE (platform_id, livemode, event_id) IN (SELECT platform_id, livemode, event_id FROM old)
    RETURNING 1
)

SELECT count(*) FROM deleted
