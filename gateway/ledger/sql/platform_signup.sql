-- What a new account gets that is made without a plan; and how long a trial lasts.
SELECT signup_plan AS plan_slug, trial_microcredits, trial_days FROM platforms WHERE id = $1
