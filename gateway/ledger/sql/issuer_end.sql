-- Not deleted: keys that stood for it stay in the books. Idempotent. Waits for who makes such a key
-- just now (key_issuer_insert.sql), so that the next statement sees it.
UPDATE issuers SET active = false WHERE platform_id = $1 AND id = $2 RETURNING id
