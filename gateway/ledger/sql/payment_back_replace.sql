-- The moves of a payment's money, as Stripe has them now: by id ($2) when ($3) and how much ($4).
-- One that has no time is dated when it is first seen. The payment is locked.
WITH gone AS (
    DELETE FROM billing_returns WHERE transaction_id = $1 AND stripe_id <> ALL ($2::text[])
)
INSERT INTO billing_returns AS known (
    transaction_id, stripe_id, platform_id, account_id, made_at, amount_minor
)
SELECT
    payment.id,
    told.stripe_id,
    payment.platform_id,
    payment.account_id,
    coalesce(from_ms(told.made_ms), seen.made_at, now()),
    told.amount_minor
FROM billing_transactions AS payment
CROSS JOIN unnest($2::text[], $3::bigint[], $4::bigint[])
    AS told (stripe_id, made_ms, amount_minor)
LEFT JOIN billing_returns AS seen
    ON seen.transaction_id = payment.id AND seen.stripe_id = told.stripe_id
WHERE payment.id = $1
ON CONFLICT (transaction_id, stripe_id) DO UPDATE SET
    made_at = excluded.made_at,
    amount_minor = excluded.amount_minor
WHERE (known.made_at, known.amount_minor)
    IS DISTINCT FROM (excluded.made_at, excluded.amount_minor)
