-- What was paid, of each currency ($7: of one), by $5, day or month (UTC): from $3, and there from
-- behind the currency $8 on, to before $4. What went back of a payment counts when it went, a
-- dispute's money like a refund; what came again takes it off. Of the payment's tax so much is gone
-- by a moment as is of the whole, and each move is the difference of two moments: nothing is
-- rounded twice. A payment of nothing, as of a trial, is none.
WITH moves AS (
    SELECT
        moved.made_at,
        payment.currency,
        payment.tax_minor,
        payment.amount_minor AS paid_minor,
        moved.amount_minor,
        (sum(moved.amount_minor) OVER so_far)::bigint AS until_minor
    FROM billing_returns AS moved
    JOIN billing_transactions AS payment ON payment.id = moved.transaction_id
    WHERE moved.transaction_id IN (
            SELECT transaction_id
            FROM billing_returns
            WHERE platform_id = $1 AND made_at >= from_ms($3) AND made_at < from_ms($4)
        )
        AND payment.livemode = $2
        AND payment.paid_at IS NOT NULL
        AND ($7::text IS NULL OR payment.currency = $7)
    WINDOW so_far AS (PARTITION BY moved.transaction_id ORDER BY moved.made_at, moved.stripe_id)
), figures AS (
    SELECT
        paid_at AS at,
        currency,
        amount_minor AS gross_minor,
        0 AS refunds_minor,
        tax_minor
    FROM billing_transactions
    WHERE platform_id = $1
        AND livemode = $2
        AND paid_at >= from_ms($3)
        AND paid_at < from_ms($4)
        AND amount_minor <> 0
        AND ($7::text IS NULL OR currency = $7)
    UNION ALL
    SELECT
        made_at,
        currency,
        0,
        sign * gone_minor,
        -sign * coalesce(div(tax_minor::numeric * gone_minor, nullif(paid_minor, 0))::bigint, 0)
    FROM moves
    CROSS JOIN LATERAL (VALUES (until_minor - amount_minor, -1), (until_minor, 1))
        AS moment (sum_minor, sign)
    CROSS JOIN LATERAL (SELECT greatest(least(sum_minor, paid_minor), 0) AS gone_minor) AS clamped
    WHERE made_at >= from_ms($3) AND made_at < from_ms($4)
)
SELECT
    to_ms(since) AS since_ms,
    currency,
    count(*) FILTER (WHERE gross_minor > 0) AS payments,
    sum(gross_minor)::bigint AS gross_minor,
    sum(refunds_minor)::bigint AS refunds_minor,
    sum(tax_minor)::bigint AS tax_minor,
    (sum(gross_minor) - sum(refunds_minor) - sum(tax_minor))::bigint AS net_minor
FROM figures
CROSS JOIN LATERAL (SELECT date_trunc($5, at, 'UTC') AS since) AS placed
WHERE (since, currency) > (from_ms($3), $8)
GROUP BY since, currency
ORDER BY since, currency
LIMIT $6
