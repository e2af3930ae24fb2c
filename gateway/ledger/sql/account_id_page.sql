-- Whom reconciliation visits: accounts of every platform, a page at a time.
SELECT id FROM accounts WHERE id > $1 ORDER BY id LIMIT $2
