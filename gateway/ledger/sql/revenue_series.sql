-- What was paid, of each currency ($7: of one), by $5, day or month (UTC): from $3, and there from
-- behind the currency $8 on, to before $4. What was paid back counts where its payment does, a
-- dispute that is not won like a refund; of its tax so much is not kept as was paid back of the
-- whole.
SELECT
    to_ms(since) AS since_ms,
    currency,
    count(*) FILTER (WHERE amount_minor > 0) AS payments,
    sum(amount_minor)::bigint AS gross_minor,
    sum(returned_minor)::bigint AS refunds_minor,
    sum(kept_tax_minor)::bigint AS tax_minor,
    sum(amount_minor - returned_minor - kept_tax_minor)::bigint AS net_minor
FROM billing_transactions
CROSS JOIN LATERAL (SELECT date_trunc($5, paid_at, 'UTC') AS since) AS placed
CROSS JOIN LATERAL (
    SELECT greatest(least(refunded_minor + disputed_minor, amount_minor), 0) AS returned_minor
) AS taken_back
CROSS JOIN LATERAL (
    SELECT CASE
        WHEN returned_minor = 0 THEN tax_minor
        ELSE tax_minor - div(tax_minor::numeric * returned_minor, amount_minor::numeric)
    END AS kept_tax_minor
) AS taxed
WHERE platform_id = $1
    AND livemode = $2
    AND paid_at >= from_ms($3)
    AND paid_at < from_ms($4)
    AND ($7::text IS NULL OR currency = $7)
    AND (since, currency) > (from_ms($3), $8)
GROUP BY since, currency
ORDER BY since, currency
LIMIT $6
