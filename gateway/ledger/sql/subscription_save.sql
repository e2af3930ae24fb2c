-- A subscription as Stripe has it now; the customer is locked. What follows from it (who serves,
-- its stage) is decided afterwards (subscription_decide.sql). Its account never changes. Which
-- invoice was not paid is kept when it is, for who is told so.
INSERT INTO subscriptions AS known (
    platform_id, livemode, stripe_id, account_id, customer_id, status, plan_slug, product_id,
    price_id, item_id, quantity, currency, unit_amount, months, discount_minor,
    period_start_at, period_end_at, trial_end_at, cancel_at, canceled_at, started_at, ended_at,
    collection_paused, schedule_id, next_plan_slug, next_price_id, next_quantity, next_months,
    next_unit_amount, next_at, unpaid_invoice_id, unpaid_since, failures
) VALUES (
    $1, $2, $3, $4, $5, $6, $7, $8,
    $9, $10, $11, $12, $13, $14, $15,
    from_ms($16), from_ms($17), from_ms($18), from_ms($19), from_ms($20), from_ms($21),
    from_ms($22),
    $23, $24, $25, $26, $27, $28,
    $29, from_ms($30), $31, from_ms($32), $33
)
ON CONFLICT (platform_id, livemode, stripe_id) DO UPDATE SET
    customer_id = excluded.customer_id,
    status = excluded.status,
    plan_slug = excluded.plan_slug,
    product_id = excluded.product_id,
    price_id = excluded.price_id,
    item_id = excluded.item_id,
    quantity = excluded.quantity,
    currency = excluded.currency,
    unit_amount = excluded.unit_amount,
    months = excluded.months,
    discount_minor = excluded.discount_minor,
    period_start_at = excluded.period_start_at,
    period_end_at = excluded.period_end_at,
    trial_end_at = excluded.trial_end_at,
    cancel_at = excluded.cancel_at,
    canceled_at = excluded.canceled_at,
    started_at = excluded.started_at,
    ended_at = excluded.ended_at,
    collection_paused = excluded.collection_paused,
    schedule_id = excluded.schedule_id,
    next_plan_slug = excluded.next_plan_slug,
    next_price_id = excluded.next_price_id,
    next_quantity = excluded.next_quantity,
    next_months = excluded.next_months,
    next_unit_amount = excluded.next_unit_amount,
    next_at = excluded.next_at,
    unpaid_invoice_id = coalesce(excluded.unpaid_invoice_id, known.unpaid_invoice_id),
    unpaid_since = excluded.unpaid_since,
    failures = excluded.failures,
    synced_at = now()
RETURNING known.account_id
