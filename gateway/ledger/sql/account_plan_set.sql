-- One row if the account and, on its platform, the plan exist.
UPDATE accounts SET plan_id = plans.id
FROM plans
WHERE accounts.id = $1 AND plans.platform_id = accounts.platform_id AND plans.slug = $2
RETURNING accounts.id
