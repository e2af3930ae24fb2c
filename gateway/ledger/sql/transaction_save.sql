-- A payment as Stripe has it now; the customer is locked. What was refunded is another matter
-- (payment_paid_back.sql): a payment that was given back as a whole stays so. A failure is kept
-- until it is paid, for it tells one that nobody tried to pay from one that could not be.
INSERT INTO billing_transactions AS known (
    platform_id, livemode, business_key, account_id, kind, status, currency, amount_minor,
    tax_minor, invoice_id, checkout_session_id, payment_intent_id, charge_id, subscription_id,
    failure, created_at, paid_at
) VALUES (
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, from_ms($16), from_ms($17)
)
ON CONFLICT (platform_id, livemode, business_key) DO UPDATE SET
    kind = excluded.kind,
    status = CASE
        WHEN known.status = 'refunded' AND excluded.status = 'succeeded' THEN 'refunded'
        ELSE excluded.status
    END,
    currency = excluded.currency,
    amount_minor = excluded.amount_minor,
    tax_minor = excluded.tax_minor,
    payment_intent_id = coalesce(excluded.payment_intent_id, known.payment_intent_id),
    charge_id = coalesce(excluded.charge_id, known.charge_id),
    subscription_id = excluded.subscription_id,
    failure = CASE
        WHEN excluded.status = 'succeeded' THEN NULL
        ELSE coalesce(excluded.failure, known.failure)
    END,
    created_at = excluded.created_at,
    paid_at = excluded.paid_at,
    updated_at = now()
RETURNING id
