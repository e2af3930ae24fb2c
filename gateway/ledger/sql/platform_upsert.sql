-- Also the lock of `apply`: two of them for one platform run one after the other.
INSERT INTO platforms (slug, name, upgrade_url, signup_plan, trial_microcredits, trial_days)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (slug) DO UPDATE SET
    name = excluded.name,
    upgrade_url = excluded.upgrade_url,
    signup_plan = excluded.signup_plan,
    trial_microcredits = excluded.trial_microcredits,
    trial_days = excluded.trial_days
RETURNING id
