-- A claim whose request died without an answer, by the first who finds it.
UPDATE api_requests SET request_id = $4, claimed_at = now()
WHERE actor = $1 AND digest = $2 AND request_id = $3 AND status IS NULL
RETURNING request_id
