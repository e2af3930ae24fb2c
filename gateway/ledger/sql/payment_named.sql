-- The payment of an invoice ("invoice:in_…") or a Checkout session ("checkout:cs_…").
SELECT id
FROM billing_transactions
WHERE platform_id = $1 AND livemode = $2 AND business_key = $3
