-- Which charge ($3) a payment was made with, or why one of it failed ($4). A payment that is made
-- has not failed, whatever was tried before.
UPDATE billing_transactions SET
    payment_intent_id = coalesce(payment_intent_id, $2),
    charge_id = CASE WHEN $4::text IS NULL THEN $3 ELSE charge_id END,
    failure = CASE WHEN status NOT IN ('succeeded', 'refunded') THEN coalesce($4, failure) END,
    updated_at = now()
WHERE id = $1
