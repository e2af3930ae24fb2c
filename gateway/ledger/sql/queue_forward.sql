-- A job that waits for its next try does not wait any longer.
UPDATE pgqueuer
SET execute_after = now(), attempts = 0
WHERE dedupe_key = $1 AND status = 'queued'
