-- An account goes by no subscription any more, and comes back to a plan by the clock, in the period
-- of it that it left and that is not over yet. No row: there is none.
UPDATE accounts SET
    plan_id = plans.id,
    renewed_by = 'clock',
    period_anchor_at = clock_periods.anchor_at,
    period_start_at = clock_periods.start_at,
    period_end_at = clock_periods.end_at
FROM clock_periods
JOIN plans ON plans.id = clock_periods.plan_id
WHERE accounts.id = $1
    AND clock_periods.account_id = accounts.id
    AND plans.slug = $2
    AND clock_periods.end_at > now()
RETURNING accounts.id
