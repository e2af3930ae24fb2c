-- Who is first does the request; nothing for all others.
INSERT INTO api_requests (actor, digest, fingerprint, request_id)
VALUES ($1, $2, $3, $4)
ON CONFLICT (actor, digest) DO NOTHING
RETURNING request_id
