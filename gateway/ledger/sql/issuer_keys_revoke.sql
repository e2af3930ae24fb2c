-- Whose keys these are is who Redis has to be told of.
WITH revoked AS (
    UPDATE api_keys SET status = 'revoked', revoked_at = now()
    WHERE platform_id = $1 AND issuer_id = $2 AND status = 'active'
    RETURNING account_id
)
SELECT DISTINCT account_id FROM revoked ORDER BY account_id
