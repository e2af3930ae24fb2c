-- Of the payments that fell due from $3 to before $4 and were tried, in each currency ($5: in one):
-- how many there are, and how many are not paid.
SELECT
    currency,
    count(*) AS tried,
    count(*) FILTER (WHERE status IN ('failed', 'cancelled')) AS failed
FROM billing_transactions
WHERE platform_id = $1
    AND livemode = $2
    AND created_at >= from_ms($3)
    AND created_at < from_ms($4)
    AND ($5::text IS NULL OR currency = $5)
    AND amount_minor > 0
    AND (
        status IN ('succeeded', 'refunded', 'failed')
        OR (status = 'cancelled' AND failure IS NOT NULL)
    )
GROUP BY currency
ORDER BY currency
