-- Which of these events came before, and need not be sent here once more: of those that nobody
-- had a use for, somebody may have one by now.
SELECT event_id
FROM stripe_events
WHERE platform_id = $1
    AND livemode = $2
    AND event_id = ANY($3::text[])
    AND status <> 'ignored'
