-- A platform's accounts in the order in which they were made. At most $3 rows are looked at: the
-- last one of so many comes back even if it does not match, to say where to go on.
SELECT
    looked.id AS account_id,
    looked.platform_id,
    looked.name,
    plan_slug,
    looked.status,
    to_ms(looked.created_at) AS created_ms,
    looked.discount_basis_points,
    plan_discount_basis_points,
    looked.renewed_by,
    looked.payment_suspended,
    coalesce(account_debts.owed_microcredits, 0)::bigint AS debt_microcredits,
    matches,
    place
FROM (
    SELECT
        accounts.*,
        plans.slug AS plan_slug,
        coalesce((plans.spec ->> 'discount_basis_points')::integer, 0)
            AS plan_discount_basis_points,
        row_number() OVER (ORDER BY accounts.id) AS place
    FROM accounts
    LEFT JOIN plans ON plans.id = accounts.plan_id
    WHERE accounts.platform_id = $1 AND accounts.id > $2
    ORDER BY accounts.id
    LIMIT $3::bigint
) AS looked
CROSS JOIN LATERAL (
    SELECT ($5::text IS NULL OR looked.status = $5)
        AND ($6::text IS NULL OR coalesce(looked.plan_slug = $6, false))
        AND ($7::text IS NULL OR starts_with(looked.name, $7)) AS matches
) AS judged
LEFT JOIN account_debts ON account_debts.account_id = looked.id
WHERE matches OR place = $3::bigint
ORDER BY looked.id
LIMIT $4
