-- Whose limits change when a plan changes.
SELECT accounts.id AS account_id
FROM accounts
JOIN plans ON plans.id = accounts.plan_id
WHERE plans.platform_id = $1 AND plans.slug = $2
ORDER BY accounts.id
