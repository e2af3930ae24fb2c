-- Only by who has the claim: who was taken over from comes too late.
UPDATE api_requests SET status = $4, answer = $5
WHERE actor = $1 AND digest = $2 AND request_id = $3 AND status IS NULL
RETURNING request_id
