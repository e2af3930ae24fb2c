-- Those of these payments of whose success the books know.
SELECT business_key
FROM billing_transactions
WHERE platform_id = $1 AND livemode = $2 AND business_key = ANY ($3::text[])
    AND status IN ('succeeded', 'refunded')
