-- Nothing was done, so that the key can be used again. Only by who has the claim.
DELETE FROM api_requests
WHERE actor = $1 AND digest = $2 AND request_id = $3 AND status IS NULL
RETURNING request_id
