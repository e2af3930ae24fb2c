-- How much of what a payment gave is to be gone by now, because money of it went back.
SELECT coalesce(sum(amount_microcredits), 0)::bigint
FROM clawbacks
WHERE platform_id = $1 AND transaction_id = $2
