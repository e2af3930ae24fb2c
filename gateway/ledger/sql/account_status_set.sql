-- Suspend or resume; one row if the account exists.
UPDATE accounts SET status = $2 WHERE id = $1 RETURNING id
