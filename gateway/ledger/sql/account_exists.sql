-- Whether a platform has this account.
SELECT EXISTS (SELECT FROM accounts WHERE platform_id = $1 AND id = $2)
