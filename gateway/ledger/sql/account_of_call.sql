-- Whose a settled call is; no row if it is another platform's.
SELECT
    accounts.id AS account_id,
    accounts.platform_id,
    accounts.name,
    plans.slug AS plan_slug,
    accounts.status,
    to_ms(accounts.created_at) AS created_ms,
    accounts.discount_basis_points,
    coalesce((plans.spec ->> 'discount_basis_points')::integer, 0) AS plan_discount_basis_points,
    accounts.renewed_by,
    accounts.payment_suspended,
    coalesce(account_debts.owed_microcredits, 0)::bigint AS debt_microcredits
FROM settlements
JOIN accounts ON accounts.id = settlements.account_id
LEFT JOIN plans ON plans.id = accounts.plan_id
LEFT JOIN account_debts ON account_debts.account_id = accounts.id
WHERE settlements.platform_id = $1 AND settlements.call_id = $2
