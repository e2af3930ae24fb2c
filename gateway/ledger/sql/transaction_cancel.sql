-- A payment whose invoice is no more: one that was a draft and was deleted.
UPDATE billing_transactions SET status = 'cancelled', updated_at = now()
WHERE platform_id = $1 AND livemode = $2 AND business_key = $3
    AND status IN ('pending', 'processing', 'failed')
RETURNING account_id
