-- Redis was told of these changes. An account that has changed again meanwhile stays.
DELETE FROM untold_accounts
USING unnest($1::bigint[], $2::bigint[]) AS told (account_id, change)
WHERE untold_accounts.account_id = told.account_id AND untold_accounts.change = told.change
