-- What payments for a subscription have given that ends at a moment ($4), of one source.
SELECT coalesce(sum(paid_lots.microcredits), 0)::bigint
FROM billing_transactions
JOIN paid_lots ON paid_lots.transaction_id = billing_transactions.id
JOIN grants ON grants.id = paid_lots.grant_id
WHERE billing_transactions.platform_id = $1
    AND billing_transactions.livemode = $2
    AND billing_transactions.account_id = $3
    AND billing_transactions.subscription_id = $5
    AND grants.source = $6
    AND grants.expires_at = from_ms($4)
    AND grants.revoked_at IS NULL
