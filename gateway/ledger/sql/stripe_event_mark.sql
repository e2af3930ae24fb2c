-- What became of an event that waited. One that was done meanwhile, by somebody else, stays done.
UPDATE stripe_events
SET status = $4::text,
    attempts = $5,
    problem = $6,
    done_at = CASE WHEN $4::text IN ('done', 'ignored') THEN now() END
WHERE platform_id = $1
    AND livemode = $2
    AND event_id = $3
    AND status = 'waiting'
RETURNING 1
