-- How many customers an account has been in a mode, deleted ones too.
SELECT count(*) FROM stripe_customers WHERE platform_id = $1 AND livemode = $2 AND account_id = $3
