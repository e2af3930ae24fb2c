-- Every key of an account as the admit script reads it: -1 revoked, 0 active for ever, else its
-- expiry.
SELECT
    id AS key_id,
    CASE WHEN status = 'revoked' THEN -1 ELSE coalesce(to_ms(expires_at), 0) END AS state
FROM api_keys
WHERE account_id = $1
ORDER BY id
