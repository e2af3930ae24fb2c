-- Names of accounts of a platform.
SELECT id, name FROM accounts WHERE platform_id = $1 AND id = ANY ($2::bigint[])
