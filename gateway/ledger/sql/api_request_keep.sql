-- Whoever has the claim lives: its lease begins anew.
UPDATE api_requests SET claimed_at = now()
WHERE actor = $1 AND digest = $2 AND request_id = $3 AND status IS NULL
RETURNING request_id
