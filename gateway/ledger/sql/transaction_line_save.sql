-- What a payment is for.
INSERT INTO billing_lines AS known (
    transaction_id, line_id, platform_id, account_id, kind, slug, product_id, price_id, quantity,
    amount_minor, proration, period_start_at, period_end_at
)
SELECT id, $2, platform_id, account_id, $3, $4, $5, $6, $7, $8, $9, from_ms($10), from_ms($11)
FROM billing_transactions
WHERE id = $1
ON CONFLICT (transaction_id, line_id) DO UPDATE SET
    kind = excluded.kind,
    slug = excluded.slug,
    product_id = excluded.product_id,
    price_id = excluded.price_id,
    quantity = excluded.quantity,
    amount_minor = excluded.amount_minor,
    proration = excluded.proration,
    period_start_at = excluded.period_start_at,
    period_end_at = excluded.period_end_at
WHERE (
    known.kind, known.slug, known.product_id, known.price_id, known.quantity, known.amount_minor,
    known.proration, known.period_start_at, known.period_end_at
) IS DISTINCT FROM (
    excluded.kind, excluded.slug, excluded.product_id, excluded.price_id, excluded.quantity,
    excluded.amount_minor, excluded.proration, excluded.period_start_at, excluded.period_end_at
)
