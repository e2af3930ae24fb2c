-- Admin tokens of earlier starts: who has one is nobody any more, logged in or not.
UPDATE api_tokens SET revoked_at = now()
WHERE role = 'operator' AND prefix = $1 AND digest <> $2 AND revoked_at IS NULL
RETURNING id
