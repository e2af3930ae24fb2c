-- A customer is gone; what it bought stays its account's, which may become another customer.
UPDATE stripe_customers SET deleted_at = now()
WHERE platform_id = $1 AND livemode = $2 AND customer_id = $3 AND deleted_at IS NULL
