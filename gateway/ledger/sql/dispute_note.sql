-- An account is told that a payment of it ($1) is disputed, or how a dispute ended: $2, each once.
INSERT INTO account_events (platform_id, account_id, kind, business_key, detail)
SELECT platform_id, account_id, $2, $2 || ':' || $3::text, jsonb_build_object(
    'transaction_id', id,
    'dispute', $3::text,
    'status', $4::text,
    'reason', $5::text,
    'amount_minor', $6::bigint::text,
    'currency', currency
)
FROM billing_transactions
WHERE id = $1
ON CONFLICT (business_key) DO NOTHING
