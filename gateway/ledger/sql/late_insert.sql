-- How a call ended, before anybody could tell Redis. Twice changes nothing.
INSERT INTO late_settlements VALUES (
    $1, $2, $3, $4, $5, $6, $7, $8, from_ms($9), from_ms($10), $11, $12, $13, $14, $15, $16
)
ON CONFLICT (call_id) DO NOTHING
