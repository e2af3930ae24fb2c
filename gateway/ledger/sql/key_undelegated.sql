-- All keys of an account, or of a platform (account NULL), but those that are a part of another.
SELECT id AS key_id
FROM api_keys
WHERE platform_id = $1 AND ($2::bigint IS NULL OR account_id = $2) AND kind <> 'delegated'
ORDER BY id
