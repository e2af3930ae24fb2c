-- A part of a lot's overage, before Stripe is asked to bill it. One that costs nothing is done.
INSERT INTO overage_charges (
    platform_id, account_id, grant_id, livemode, business_key, from_microcredits, to_microcredits,
    currency, amount_minor, billed_at
)
SELECT platform_id, account_id, $1, $2, $3, $4, $5, $6, $7, CASE WHEN $7::bigint = 0 THEN now() END
FROM grants
WHERE id = $1
ON CONFLICT (grant_id, from_microcredits) DO NOTHING
