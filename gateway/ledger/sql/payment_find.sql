-- The payment that a charge ($4) of an intent ($3) is of, by whichever of them was written.
SELECT id
FROM billing_transactions
WHERE platform_id = $1 AND livemode = $2 AND (payment_intent_id = $3 OR charge_id = $4)
ORDER BY id
LIMIT 1
