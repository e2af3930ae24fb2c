-- Subscriptions that are not paid for, those behind an id by id: has their stage moved with the
-- time?
SELECT
    unpaid.id,
    unpaid.stripe_id,
    unpaid.unpaid_invoice_id,
    to_ms(unpaid.unpaid_since) AS unpaid_since_ms,
    unpaid.failures,
    unpaid.dunning_stage,
    EXISTS (
        SELECT FROM subscriptions AS serving
        WHERE serving.account_id = unpaid.account_id
            AND serving.livemode = unpaid.livemode
            AND serving.serves
    ) AS is_served,
    to_ms(now()) AS now_ms
FROM subscriptions AS unpaid
WHERE unpaid.platform_id = $1
    AND unpaid.livemode = $2
    AND unpaid.unpaid_since IS NOT NULL
    AND unpaid.id > $3
ORDER BY unpaid.id
LIMIT $4
