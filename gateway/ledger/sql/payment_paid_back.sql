-- How much of a payment went back by now. All of it refunded is a status; less is not, and a refund
-- that failed makes it paid again.
UPDATE billing_transactions SET
    refunded_minor = $2,
    disputed_minor = $3,
    status = CASE
        WHEN status = 'succeeded' AND amount_minor > 0 AND $2 >= amount_minor THEN 'refunded'
        WHEN status = 'refunded' AND $2 < amount_minor THEN 'succeeded'
        ELSE status
    END,
    updated_at = now()
WHERE id = $1 AND (
    (refunded_minor, disputed_minor) IS DISTINCT FROM ($2::bigint, $3::bigint)
    OR (status = 'refunded') <> (amount_minor > 0 AND $2 >= amount_minor)
        AND status IN ('succeeded', 'refunded')
)
