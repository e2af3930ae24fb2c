-- How many delegated keys of an account Redis may have to know.
SELECT count(*) FROM api_keys WHERE account_id = $1 AND kind = 'delegated' AND NOT closed
