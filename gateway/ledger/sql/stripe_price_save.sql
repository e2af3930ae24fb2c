-- As Stripe has it now.
INSERT INTO stripe_prices (
    platform_id, livemode, price_id, product_id, active, currency, unit_amount, months, problem
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
ON CONFLICT (platform_id, livemode, price_id) DO UPDATE SET
    product_id = excluded.product_id,
    active = excluded.active,
    currency = excluded.currency,
    unit_amount = excluded.unit_amount,
    months = excluded.months,
    problem = excluded.problem,
    synced_at = now()
