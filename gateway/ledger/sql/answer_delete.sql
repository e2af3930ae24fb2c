-- Answers are kept for a day; a page at a time, so that no statement holds many locks for long. One
-- that was written anew meanwhile is not old any more.
WITH deleted AS (
    DELETE FROM idempotent_answers
    WHERE (account_id, digest) IN (
        SELECT account_id, digest
        FROM idempotent_answers
        WHERE created_at < now() - $1 * interval '1 ms'
        ORDER BY created_at
        LIMIT $2
        FOR UPDATE SKIP LOCKED
    )
    RETURNING 1
)
SELECT count(*) FROM deleted
