-- A platform's payments ($2: of an account alone), the newest first, from a row on. At most $4 rows
-- are looked at: the last one of so many comes back even if it does not match, to say where to go
-- on.
SELECT
    id AS transaction_id,
    account_id,
    livemode,
    kind,
    status,
    currency,
    amount_minor,
    tax_minor,
    refunded_minor,
    disputed_minor,
    invoice_id,
    checkout_session_id,
    payment_intent_id,
    charge_id,
    subscription_id,
    failure,
    to_ms(created_at) AS created_ms,
    coalesce(to_ms(paid_at), 0) AS paid_ms,
    matches,
    place
FROM (
    SELECT billing_transactions.*, row_number() OVER (ORDER BY id DESC) AS place
    FROM billing_transactions
    WHERE platform_id = $1 AND ($2::bigint IS NULL OR account_id = $2) AND id < $3
    ORDER BY id DESC
    LIMIT $4::bigint
) AS looked
CROSS JOIN LATERAL (
    SELECT ($6::boolean IS NULL OR livemode = $6)
        AND ($7::text IS NULL OR status = $7)
        AND ($8::text IS NULL OR kind = $8)
        AND ($9::text IS NULL OR currency = $9)
        AND ($10::bigint IS NULL OR created_at >= from_ms($10))
        AND ($11::bigint IS NULL OR created_at < from_ms($11)) AS matches
) AS judged
WHERE matches OR place = $4::bigint
ORDER BY id DESC
LIMIT $5
