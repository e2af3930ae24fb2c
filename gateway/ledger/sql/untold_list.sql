-- What whoever changed it did not live to tell, or could not.
SELECT account_id FROM untold_accounts
WHERE changed_at < now() - $1 * interval '1 ms'
ORDER BY changed_at
LIMIT $2
