-- An account leaves the plan that the clock renews: which period of it that leaves behind. Without
-- such a plan there is none.
INSERT INTO clock_periods (plan_id, account_id, platform_id, anchor_at, start_at, end_at)
SELECT plan_id, id, platform_id, period_anchor_at, period_start_at, period_end_at
FROM accounts
WHERE id = $1
    AND renewed_by = 'clock'
    AND plan_id IS NOT NULL
    AND period_end_at IS NOT NULL
ON CONFLICT (plan_id, account_id) DO UPDATE SET
    anchor_at = excluded.anchor_at,
    start_at = excluded.start_at,
    end_at = excluded.end_at
