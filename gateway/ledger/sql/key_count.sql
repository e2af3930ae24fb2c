-- How many keys of an account are secrets that are not revoked: all of them are told to Redis.
SELECT count(*) FROM api_keys WHERE account_id = $1 AND kind = 'key' AND status = 'active'
