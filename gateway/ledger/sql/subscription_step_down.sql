-- Before another subscription serves an account, or none does: one at a time may.
UPDATE subscriptions SET serves = false
WHERE account_id = $1 AND livemode = $2 AND serves AND stripe_id IS DISTINCT FROM $3
