-- Jobs that ended in a way that nobody foresaw. Their events say what is to be done.
WITH deleted AS (
    DELETE FROM pgqueuer WHERE status = 'failed' RETURNING 1
)
SELECT count(*) FROM deleted
