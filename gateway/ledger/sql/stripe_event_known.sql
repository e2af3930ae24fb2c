-- Which of these events came before.
SELECT event_id
FROM stripe_events
WHERE platform_id = $1
    AND livemode = $2
    AND event_id = ANY($3::text[])
