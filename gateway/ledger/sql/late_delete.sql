-- Redis has charged the call; its settlement is on its way like any other, or here.
DELETE FROM late_settlements WHERE call_id = $1
