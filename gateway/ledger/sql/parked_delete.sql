-- The call is settled: its hold is not to be put back.
DELETE FROM parked_holds WHERE call_id = $1
