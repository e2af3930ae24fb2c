-- An account goes by no subscription any more: it has no plan, until it is given one.
UPDATE accounts SET
    plan_id = NULL,
    renewed_by = 'clock',
    period_anchor_at = NULL,
    period_start_at = NULL,
    period_end_at = NULL
WHERE id = $1
