-- Every key of accounts as the admit script reads it: -1 revoked, 0 active for ever, else its
-- expiry; and its limits and caps.
SELECT
    account_id,
    id AS key_id,
    CASE WHEN status = 'revoked' THEN -1 ELSE coalesce(to_ms(expires_at), 0) END AS state,
    spec
FROM api_keys
WHERE account_id = ANY ($1::bigint[])
ORDER BY id
