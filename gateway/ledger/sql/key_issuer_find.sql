-- What stands for an account that a platform's own issuer names, if it was named before.
SELECT api_keys.digest
FROM accounts
JOIN api_keys ON api_keys.account_id = accounts.id
WHERE accounts.platform_id = $1 AND accounts.name = $3 AND api_keys.issuer_id = $2
