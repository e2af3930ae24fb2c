-- A platform's keys in the order in which they were made. At most $3 rows are looked at: the last
-- one of so many comes back even if it does not match, to say where to go on.
SELECT key_id, matches, place
FROM (
    SELECT
        id AS key_id,
        status,
        kind,
        expires_at,
        row_number() OVER (ORDER BY id) AS place
    FROM api_keys
    WHERE platform_id = $1 AND id > $2
    ORDER BY platform_id, id
    LIMIT $3::bigint
) AS looked
CROSS JOIN LATERAL (
    SELECT ($6::text IS NULL OR kind = $6) AND ($5::text IS NULL OR $5 = CASE
        WHEN status = 'revoked' THEN 'revoked'
        WHEN expires_at <= now() THEN 'expired'
        ELSE 'active'
    END) AS matches
) AS judged
WHERE matches OR place = $3::bigint
ORDER BY key_id
LIMIT $4
