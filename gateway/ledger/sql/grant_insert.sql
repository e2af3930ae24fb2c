-- A lot and its ledger entry, or neither. With a business key ($8) it is given once: the answer is
-- then the lot that has it. No row: there is no such account, or another transaction has given the
-- lot since this statement began.
--
-- What the account owes (account_debts) is paid first: the lot begins with so much taken from it,
-- by a change of its own, and the debt is less by the same. Overage is no payment, and a refund
-- gives back what was taken. Of two lots given at once the second waits for the first, and then
-- reads what is still owed. A lot of overage keeps what its plan asks for it by now.
WITH debt AS MATERIALIZED (
    SELECT owed_microcredits
    FROM account_debts
    WHERE account_id = $1
        AND owed_microcredits > 0
        AND $2::text NOT IN ('overage', 'refund')
        AND NOT EXISTS (SELECT FROM grants WHERE business_key = $8)
    FOR NO KEY UPDATE
), granted AS (
    INSERT INTO grants (
        platform_id, account_id, source, amount_microcredits, revoked_microcredits,
        effective_at, expires_at, priority, note, business_key, rollovers
    )
    SELECT platform_id, id, $2::text, $3::bigint,
        coalesce((SELECT least(debt.owed_microcredits, $3::bigint) FROM debt), 0),
        coalesce(from_ms($4), now()), from_ms($5), $6, $7, $8, $9
    FROM accounts WHERE id = $1
    ON CONFLICT (business_key) DO NOTHING
    RETURNING id, platform_id, account_id, amount_microcredits, revoked_microcredits, created_at
), entered AS (
    INSERT INTO ledger_entries (platform_id, account_id, grant_id, kind, microcredits, created_at)
    SELECT platform_id, account_id, id, 'grant', amount_microcredits, created_at FROM granted
), paid AS MATERIALIZED (
    SELECT gen_random_uuid() AS change_id, platform_id, account_id, id AS grant_id,
        revoked_microcredits AS microcredits, created_at
    FROM granted
    WHERE revoked_microcredits > 0
), lowered AS (
    UPDATE account_debts SET owed_microcredits = owed_microcredits - paid.microcredits
    FROM paid
    WHERE account_debts.account_id = paid.account_id
), changed AS (
    INSERT INTO ledger_changes (id, platform_id, account_id, kind, note, created_at)
    SELECT change_id, platform_id, account_id, 'adjust', 'pays what the account owed', created_at
    FROM paid
), posted AS (
    INSERT INTO ledger_entries (
        platform_id, account_id, grant_id, kind, microcredits, created_at, change_id
    )
    SELECT platform_id, account_id, grant_id, 'adjust', -microcredits, created_at, change_id
    FROM paid
), noted AS (
    INSERT INTO debt_entries (platform_id, account_id, kind, microcredits, grant_id)
    SELECT platform_id, account_id, 'paid', microcredits, grant_id FROM paid
), priced AS (
    INSERT INTO overage_terms (grant_id, platform_id, account_id, plan_slug, nanos_per_credit)
    SELECT granted.id, granted.platform_id, granted.account_id, plans.slug,
        (plans.spec ->> 'overage_price_nanos')::bigint
    FROM granted
    JOIN accounts ON accounts.id = granted.account_id
    JOIN plans ON plans.id = accounts.plan_id
    WHERE $2::text = 'overage' AND plans.spec ->> 'overage_price_nanos' IS NOT NULL
)
SELECT id FROM granted
UNION ALL
SELECT id FROM grants WHERE business_key = $8
LIMIT 1
