-- What follows from all subscriptions of an account for one of them.
UPDATE subscriptions SET serves = $4, superseded_by = $5, dunning_stage = $6
WHERE account_id = $1 AND livemode = $2 AND stripe_id = $3
    AND (serves, superseded_by, dunning_stage) IS DISTINCT FROM ($4, $5, $6)
