-- A payment, as far as money that goes back is concerned; no row: it is of another platform or
-- mode.
SELECT
    id AS transaction_id, account_id, invoice_id, checkout_session_id, payment_intent_id, charge_id,
    amount_minor, refunded_minor, disputed_minor
FROM billing_transactions
WHERE platform_id = $1 AND livemode = $2 AND id = $3
