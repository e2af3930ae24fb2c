-- One payment of a platform.
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
WHERE platform_id = $1 AND id = $2
