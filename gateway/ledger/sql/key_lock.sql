-- Whoever changes a key does so alone among all who change or delegate keys of its account.
SELECT accounts.id
FROM api_keys
JOIN accounts ON accounts.id = api_keys.account_id
WHERE api_keys.platform_id = $1 AND api_keys.id = $2
FOR NO KEY UPDATE OF accounts
