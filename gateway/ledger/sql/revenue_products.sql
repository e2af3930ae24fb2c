-- What was sold of each plan and pack, and of overage, in payments made from $3 to before $4, in
-- each currency ($5: in one), less what went back of any payment in that time; from behind a place
-- on ($7 to $9). Without tax. What is gone of a payment by a moment is its lines', by their
-- amounts, to the last minor unit; what went back in a time is the difference of two moments. A
-- payment of nothing for nothing, as of a trial, is none.
WITH gone AS (
    SELECT
        payment.id AS transaction_id,
        payment.currency,
        payment.tax_minor,
        payment.amount_minor AS paid_minor,
        moment.sign,
        greatest(least(
            coalesce(sum(moved.amount_minor) FILTER (WHERE moved.made_at < moment.at), 0),
            payment.amount_minor
        ), 0) AS gone_minor
    FROM billing_returns AS moved
    JOIN billing_transactions AS payment ON payment.id = moved.transaction_id
    CROSS JOIN (VALUES (from_ms($3), -1), (from_ms($4), 1)) AS moment (at, sign)
    WHERE moved.transaction_id IN (
            SELECT transaction_id
            FROM billing_returns
            WHERE platform_id = $1 AND made_at >= from_ms($3) AND made_at < from_ms($4)
        )
        AND payment.livemode = $2
        AND payment.paid_at IS NOT NULL
        AND ($5::text IS NULL OR payment.currency = $5)
    GROUP BY payment.id, moment.sign
), lines AS (
    SELECT
        gone.currency,
        billing_lines.kind,
        billing_lines.slug,
        billing_lines.amount_minor,
        gone.sign,
        gone_minor - coalesce(div(tax_minor * gone_minor, nullif(paid_minor, 0)), 0) AS gone_minor,
        sum(billing_lines.amount_minor) OVER so_far AS until_minor,
        sum(billing_lines.amount_minor) OVER (PARTITION BY gone.transaction_id, sign) AS all_minor
    FROM gone
    JOIN billing_lines ON billing_lines.transaction_id = gone.transaction_id
    WINDOW so_far AS (PARTITION BY gone.transaction_id, sign ORDER BY billing_lines.line_id)
), figures AS (
    SELECT
        payment.id AS transaction_id,
        payment.currency,
        billing_lines.kind,
        billing_lines.slug,
        billing_lines.amount_minor AS sold_minor,
        0 AS refunds_minor
    FROM billing_transactions AS payment
    JOIN billing_lines ON billing_lines.transaction_id = payment.id
    WHERE payment.platform_id = $1
        AND payment.livemode = $2
        AND payment.paid_at >= from_ms($3)
        AND payment.paid_at < from_ms($4)
        AND (payment.amount_minor <> 0 OR billing_lines.amount_minor <> 0)
        AND ($5::text IS NULL OR payment.currency = $5)
    UNION ALL
    SELECT
        NULL,
        currency,
        kind,
        slug,
        0,
        sign * coalesce(
            div(gone_minor * until_minor, nullif(all_minor, 0))
                - div(gone_minor * (until_minor - amount_minor), nullif(all_minor, 0)),
            0
        )
    FROM lines
)
SELECT
    currency,
    kind,
    slug,
    count(DISTINCT transaction_id) AS payments,
    sum(sold_minor)::bigint AS sold_minor,
    sum(refunds_minor)::bigint AS refunds_minor,
    (sum(sold_minor) - sum(refunds_minor))::bigint AS net_minor
FROM figures
GROUP BY currency, kind, slug
HAVING (currency, kind, slug) > ($7, $8, $9)
ORDER BY currency, kind, slug
LIMIT $6
