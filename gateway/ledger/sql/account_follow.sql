-- An account goes by a subscription: its plan and its period.
UPDATE accounts SET
    plan_id = plans.id,
    renewed_by = 'subscription',
    period_anchor_at = from_ms($3),
    period_start_at = from_ms($4),
    period_end_at = from_ms($5)
FROM plans
WHERE accounts.id = $1 AND plans.platform_id = accounts.platform_id AND plans.slug = $2
RETURNING plans.spec
