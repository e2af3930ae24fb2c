-- Who pays for subscriptions at $3, and at $4, in each currency ($5: in one). A subscription is
-- paid for from its start or the end of its trial on, until it ends, or until when it was not paid
-- any more and is left so. What it brings in is its price of now, less its discount, for 1 of
-- $6 x its months; $6 is a multiple of every number of months, so nothing is rounded here.
WITH spans AS (
    SELECT
        account_id,
        currency,
        greatest(started_at, trial_end_at) AS since,
        least(
            ended_at,
            CASE WHEN status = 'canceled' THEN canceled_at END,
            CASE
                WHEN status = 'unpaid' OR dunning_stage IN ('downgraded', 'suspended')
                    THEN unpaid_since
            END
        ) AS until,
        (unit_amount::numeric * quantity - discount_minor) * div($6::numeric, months) AS amount
    FROM subscriptions
    WHERE platform_id = $1
        AND livemode = $2
        AND currency IS NOT NULL
        AND ($5::text IS NULL OR currency = $5)
        AND months IS NOT NULL
        AND status NOT IN ('paused', 'incomplete', 'incomplete_expired')
        AND NOT collection_paused
), payers AS (
    SELECT
        currency,
        coalesce(sum(amount) FILTER (
            WHERE since <= from_ms($3) AND (until IS NULL OR until > from_ms($3))
        ), 0) AS at_start,
        coalesce(sum(amount) FILTER (
            WHERE since <= from_ms($4) AND (until IS NULL OR until > from_ms($4))
        ), 0) AS at_end
    FROM spans
    GROUP BY account_id, currency
)
SELECT
    currency,
    count(*) FILTER (WHERE at_end > 0) AS customers,
    count(*) FILTER (WHERE at_start > 0) AS customers_at_start,
    count(*) FILTER (WHERE at_start > 0 AND at_end = 0) AS customers_lost,
    sum(at_end) AS amount,
    sum(at_start) AS amount_at_start,
    sum(greatest(at_start - at_end, 0)) AS amount_lost
FROM payers
GROUP BY currency
ORDER BY currency
