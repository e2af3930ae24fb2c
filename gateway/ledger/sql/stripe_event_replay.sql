-- An event is to be worked on once more, whatever became of it, as if it had just come.
UPDATE stripe_events
SET status = 'waiting', attempts = 0, problem = NULL, done_at = NULL
WHERE platform_id = $1
    AND livemode = $2
    AND event_id = $3
RETURNING 1
