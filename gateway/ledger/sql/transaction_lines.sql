-- What payments of a platform were for, and which credits each of them gave in all.
SELECT
    billing_lines.transaction_id,
    line_id,
    kind,
    slug,
    quantity,
    amount_minor,
    proration,
    coalesce(to_ms(period_start_at), 0) AS period_start_ms,
    coalesce(to_ms(period_end_at), 0) AS period_end_ms
FROM billing_lines
WHERE billing_lines.platform_id = $1 AND billing_lines.transaction_id = ANY($2::bigint[])
ORDER BY billing_lines.transaction_id, line_id
