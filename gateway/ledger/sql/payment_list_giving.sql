-- Payments of money for a subscription that gave lots which end at one of these moments ($5).
SELECT
    id AS transaction_id, account_id, invoice_id, checkout_session_id, payment_intent_id, charge_id,
    amount_minor, refunded_minor, disputed_minor
FROM billing_transactions AS payments
WHERE platform_id = $1 AND livemode = $2 AND account_id = $3 AND subscription_id = $4
    AND amount_minor > 0
    AND EXISTS (
        SELECT FROM paid_lots
        JOIN grants ON grants.id = paid_lots.grant_id
        WHERE paid_lots.transaction_id = payments.id
            AND grants.expires_at IN (SELECT from_ms(end_ms) FROM unnest($5::bigint[]) AS end_ms)
            AND grants.revoked_at IS NULL
    )
ORDER BY id
