-- Subscriptions that are not paid for, those behind an id by id: has their stage moved with the time?
SELECT
    id,
    stripe_id,
    unpaid_invoice_id,
    to_ms(unpaid_since) AS unpaid_since_ms,
    failures,
    dunning_stage,
    to_ms(now()) AS now_ms
FROM subscriptions
WHERE platform_id = $1 AND livemode = $2 AND unpaid_since IS NOT NULL AND id > $3
ORDER BY id
LIMIT $4
