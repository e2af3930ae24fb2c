-- What the admit script needs of accounts besides keys and lots, and the moment at which it was so.
SELECT
    accounts.id AS account_id,
    accounts.platform_id,
    CASE WHEN accounts.payment_suspended THEN 'suspended' ELSE accounts.status END AS status,
    plans.slug AS plan_slug,
    plans.spec AS plan,
    accounts.discount_basis_points AS discount,
    EXISTS (
        SELECT FROM routes
        JOIN price_versions ON price_versions.id = routes.price_version_id
        WHERE routes.platform_id = accounts.platform_id
            AND routes.active
            AND jsonb_path_exists(price_versions.spec, '$.**.tiers[*]')
    ) AS tiers,
    coalesce(to_ms(accounts.period_anchor_at), 0) AS anchor_ms,
    coalesce(to_ms(accounts.period_start_at), 0) AS start_ms,
    coalesce(to_ms(accounts.period_end_at), 0) AS end_ms,
    to_ms(now()) AS now_ms,
    to_char(now() AT TIME ZONE 'UTC', 'YYYYMM')::integer AS month
FROM accounts
LEFT JOIN plans ON plans.id = accounts.plan_id
WHERE accounts.id = ANY ($1::bigint[])
