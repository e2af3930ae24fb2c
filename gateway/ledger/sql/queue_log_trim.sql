-- What the queue notes of every job is for looking into what happened, for some days.
WITH deleted AS (
    DELETE FROM pgqueuer_log
    WHERE id IN (
        SELECT id
        FROM pgqueuer_log
        WHERE created < now() - $1 * interval '1 ms'
        ORDER BY created
        LIMIT $2
    )
    RETURNING 1
)
SELECT count(*) FROM deleted
