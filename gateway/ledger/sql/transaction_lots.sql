-- Which lots a payment gave.
SELECT grant_id, microcredits
FROM paid_lots
WHERE platform_id = $1 AND transaction_id = $2
ORDER BY grant_id
