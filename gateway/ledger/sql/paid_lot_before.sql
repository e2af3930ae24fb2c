-- The lots of payments for a subscription that gave something which ends at a moment ($4), of one
-- source. counts: it is such a lot. Those of a payment come in the order in which credits are taken
-- back of them (payment_lots.sql), but first those that were revoked: they are gone in any case.
SELECT
    payments.id AS transaction_id,
    payments.amount_minor,
    paid_lots.microcredits::bigint AS microcredits,
    grants.revoked_at IS NULL AND grants.source = $6 AND grants.expires_at = from_ms($4) AS counts
FROM billing_transactions AS payments
JOIN paid_lots ON paid_lots.transaction_id = payments.id
JOIN grants ON grants.id = paid_lots.grant_id
WHERE payments.platform_id = $1
    AND payments.livemode = $2
    AND payments.account_id = $3
    AND payments.subscription_id = $5
    AND EXISTS (
        SELECT FROM paid_lots AS others
        JOIN grants AS wanted ON wanted.id = others.grant_id
        WHERE others.transaction_id = payments.id
            AND wanted.source = $6
            AND wanted.expires_at = from_ms($4)
            AND wanted.revoked_at IS NULL
    )
ORDER BY payments.id, grants.revoked_at NULLS LAST, grants.priority DESC,
    grants.expires_at DESC NULLS FIRST, grants.created_at DESC, grants.id DESC
