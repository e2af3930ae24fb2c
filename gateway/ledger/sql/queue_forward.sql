-- A job that waits for its next try does not wait any longer.
UPDATE pgqueuer
SET execute_after = now(), attempts = 0
WHERE dedupe_key IN ($1, $2) AND status = 'queued'
RETURNING 1
