-- Sessions that are over can't be refreshed anyhow; a page at a time, as in answer_delete.sql.
WITH deleted AS (
    DELETE FROM login_sessions
    WHERE id IN (
        SELECT id
        FROM login_sessions
        WHERE expires_at < now()
        ORDER BY expires_at
        LIMIT $1
        FOR UPDATE SKIP LOCKED
    )
    RETURNING 1
)
SELECT count(*) FROM deleted
