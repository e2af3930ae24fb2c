-- Events that wait, and that no job of the queue is about. Both are written in one transaction: a
-- job is lost when its process was cut off while it ended, or by somebody's hand.
SELECT platform_id, livemode, event_id
FROM stripe_events AS event
CROSS JOIN LATERAL (
    SELECT concat_ws(':', event.platform_id, event.livemode::integer, event.event_id) AS key
) AS text
WHERE status = 'waiting'
    AND NOT EXISTS (
        SELECT FROM pgqueuer AS job
        WHERE job.status IN ('queued', 'picked')
            AND job.dedupe_key IN (text.key, text.key || ':again')
    )
ORDER BY received_at
LIMIT $1
