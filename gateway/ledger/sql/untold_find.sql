-- Before an account is read to tell Redis of it: which change that will have told.
SELECT account_id, change FROM untold_accounts WHERE account_id = ANY ($1::bigint[])
