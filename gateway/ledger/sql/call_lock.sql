-- Whoever gives a call's credits back does so alone. Settling a call locks no other call's row, so
-- this waits for nobody on a call's way.
SELECT FROM settlements WHERE call_id = $1 FOR NO KEY UPDATE
