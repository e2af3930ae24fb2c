-- What was sold of each plan and pack, and of overage, in payments made from $3 to before $4, in
-- each currency ($5: in one), from behind a place on ($7 to $9). Without tax; what was paid back of
-- a payment is its lines', by their amounts, to the last minor unit.
WITH paid AS (
    SELECT
        id AS transaction_id,
        currency,
        returned_minor - CASE
            WHEN returned_minor = 0 THEN 0
            ELSE div(tax_minor::numeric * returned_minor, amount_minor::numeric)
        END AS returned_minor
    FROM billing_transactions
    CROSS JOIN LATERAL (
        SELECT greatest(least(refunded_minor + disputed_minor, amount_minor), 0) AS returned_minor
    ) AS taken_back
    WHERE platform_id = $1
        AND livemode = $2
        AND paid_at >= from_ms($3)
        AND paid_at < from_ms($4)
        AND ($5::text IS NULL OR currency = $5)
), lines AS (
    SELECT
        paid.transaction_id,
        paid.currency,
        paid.returned_minor,
        billing_lines.kind,
        billing_lines.slug,
        billing_lines.amount_minor,
        sum(billing_lines.amount_minor) OVER so_far AS until_minor,
        sum(billing_lines.amount_minor) OVER (PARTITION BY paid.transaction_id) AS all_minor
    FROM paid
    JOIN billing_lines ON billing_lines.transaction_id = paid.transaction_id
    WINDOW so_far AS (PARTITION BY paid.transaction_id ORDER BY billing_lines.line_id)
), shared AS (
    SELECT
        *,
        CASE
            WHEN all_minor = 0 THEN 0
            ELSE div(returned_minor * until_minor, all_minor)
                - div(returned_minor * (until_minor - amount_minor), all_minor)
        END AS returned_of_line_minor
    FROM lines
)
SELECT
    currency,
    kind,
    slug,
    count(DISTINCT transaction_id) AS payments,
    sum(amount_minor)::bigint AS sold_minor,
    sum(returned_of_line_minor)::bigint AS refunds_minor,
    sum(amount_minor - returned_of_line_minor)::bigint AS net_minor
FROM shared
GROUP BY currency, kind, slug
HAVING (currency, kind, slug) > ($7, $8, $9)
ORDER BY currency, kind, slug
LIMIT $6
