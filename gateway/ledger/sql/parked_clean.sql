-- Rows of calls that are settled, and whose end nobody lived to tell, or that ended with their
-- lease. A page at a time, so that no statement holds many locks for long.
WITH deleted AS (
    DELETE FROM parked_holds
    WHERE call_id IN (
        SELECT parked_holds.call_id
        FROM parked_holds
        WHERE EXISTS (SELECT FROM settlements WHERE settlements.call_id = parked_holds.call_id)
        LIMIT $1
        FOR UPDATE SKIP LOCKED
    )
    RETURNING 1
)
SELECT count(*) FROM deleted
