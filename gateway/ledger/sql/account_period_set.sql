-- The period in force, from its start to just before its end.
UPDATE accounts SET
    period_anchor_at = from_ms($2),
    period_start_at = from_ms($3),
    period_end_at = from_ms($4)
WHERE id = $1
