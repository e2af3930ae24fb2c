-- Something that an account is to be told of, once: the business key names it.
INSERT INTO account_events (platform_id, account_id, kind, business_key, detail)
SELECT platform_id, id, $2, $3, $4 FROM accounts WHERE id = $1
ON CONFLICT (business_key) DO NOTHING
