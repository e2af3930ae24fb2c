-- The slug stays: clients and settings name it.
UPDATE platforms SET
    name = $2, upgrade_url = $3, signup_plan = $4, trial_microcredits = $5, trial_days = $6
WHERE id = $1
RETURNING slug
