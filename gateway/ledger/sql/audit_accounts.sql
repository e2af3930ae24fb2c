-- Whom an audit visits: the accounts of every platform.
SELECT accounts.id AS account_id, accounts.name, platforms.slug AS platform_slug
FROM accounts
JOIN platforms ON platforms.id = accounts.platform_id
ORDER BY accounts.id
