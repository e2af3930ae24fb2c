-- Keys are remembered for a day; a page at a time, as in answer_delete.sql.
WITH deleted AS (
    DELETE FROM api_requests
    WHERE (actor, digest) IN (
        SELECT actor, digest
        FROM api_requests
        WHERE claimed_at < now() - $1 * interval '1 ms'
        ORDER BY claimed_at
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    )
    RETURNING 1
)
SELECT count(*) FROM deleted
