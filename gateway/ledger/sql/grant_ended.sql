-- Lots that have ended with something left by Postgres' account: what of it is not held has to be
-- withdrawn in Redis. Those with nothing left are closed, so that nobody looks at them again. Lots
-- that a batch of settlements has locked are closed at the next look. Looked for in the order of
-- the index, longest over first: by id the server would read every lot there ever was.
WITH due AS MATERIALIZED (
    SELECT
        id, platform_id, account_id, source, revoked_at,
        amount_microcredits + credited_microcredits
            - settled_microcredits - expired_microcredits - revoked_microcredits AS left_over
    FROM grants
    WHERE expires_at <= now() AND NOT closed
    ORDER BY expires_at
    LIMIT 10000
), emptied AS MATERIALIZED (
    SELECT
        id,
        amount_microcredits + credited_microcredits
            - settled_microcredits - expired_microcredits - revoked_microcredits AS left_over
    FROM grants
    WHERE id IN (SELECT due.id FROM due WHERE due.left_over = 0)
    ORDER BY id
    FOR NO KEY UPDATE SKIP LOCKED
), closing AS (
    UPDATE grants SET closed = true
    FROM emptied
    WHERE grants.id = emptied.id AND emptied.left_over = 0
)
SELECT
    id AS grant_id,
    platform_id,
    account_id,
    source,
    CASE WHEN revoked_at IS NULL THEN 'expire' ELSE 'revoke' END AS kind,
    left_over AS left_microcredits
FROM due
WHERE left_over > 0 AND id > $2
ORDER BY id
LIMIT $1
