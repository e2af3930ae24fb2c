-- An account's payments that were made within a time, and those that are owed since then: what its
-- statement of that time shows. They are few; the first so many.
SELECT
    id AS transaction_id,
    account_id,
    livemode,
    kind,
    status,
    currency,
    amount_minor,
    tax_minor,
    refunded_minor,
    disputed_minor,
    invoice_id,
    checkout_session_id,
    payment_intent_id,
    charge_id,
    subscription_id,
    failure,
    to_ms(created_at) AS created_ms,
    coalesce(to_ms(paid_at), 0) AS paid_ms
FROM billing_transactions
WHERE platform_id = $1
    AND account_id = $2
    AND livemode = $3
    AND coalesce(paid_at, created_at) >= from_ms($4)
    AND coalesce(paid_at, created_at) < from_ms($5)
    AND status <> 'cancelled'
ORDER BY id
LIMIT $6
