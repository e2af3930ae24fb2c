-- What the first who sent this key asked for, and what it was answered, if it was.
SELECT request_id, fingerprint, to_ms(claimed_at) AS claimed_ms, status, answer
FROM api_requests
WHERE actor = $1 AND digest = $2
