-- In a change's own transaction: Redis is to be told of an account, whoever dies before it is.
INSERT INTO untold_accounts (account_id, platform_id)
SELECT id, platform_id FROM accounts WHERE id = $1
ON CONFLICT (account_id) DO UPDATE SET change = DEFAULT, changed_at = now()
