-- A page of an account's keys, which are few beside its platform's; of one state, or of all (NULL).
SELECT id AS key_id
FROM api_keys
WHERE platform_id = $1 AND account_id = $2 AND id > $3
    AND ($5::text IS NULL OR $5 = CASE
        WHEN status = 'revoked' THEN 'revoked'
        WHEN expires_at <= now() THEN 'expired'
        ELSE 'active'
    END)
ORDER BY account_id, id
LIMIT $4
