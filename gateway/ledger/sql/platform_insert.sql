-- Nothing when there is one of this slug.
INSERT INTO platforms (slug, name, upgrade_url, signup_plan, trial_microcredits, trial_days)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (slug) DO NOTHING
RETURNING id
