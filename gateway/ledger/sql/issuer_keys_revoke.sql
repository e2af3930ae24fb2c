-- Answers whose keys of this issuer there are, revoked before or now: Redis has to be told of them.
WITH revoked AS (
    UPDATE api_keys SET status = 'revoked', revoked_at = now()
    WHERE platform_id = $1 AND issuer_id = $2 AND status = 'active'
)
SELECT DISTINCT account_id FROM api_keys
WHERE platform_id = $1 AND issuer_id = $2
ORDER BY account_id
