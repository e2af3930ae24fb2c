-- A page of a platform's keys along the index; of one state, or of all (NULL).
SELECT id AS key_id
FROM api_keys
WHERE platform_id = $1 AND id > $2
    AND ($4::text IS NULL OR $4 = CASE
        WHEN status = 'revoked' THEN 'revoked'
        WHEN expires_at <= now() THEN 'expired'
        ELSE 'active'
    END)
ORDER BY platform_id, id
LIMIT $3
