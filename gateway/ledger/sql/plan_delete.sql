-- Gone only where no account has it. One that gets it at the same moment keeps it by its reference.
DELETE FROM plans
WHERE platform_id = $1
    AND slug = $2
    AND managed_by = 'api'
    AND NOT EXISTS (SELECT FROM accounts WHERE accounts.plan_id = plans.id)
RETURNING id
