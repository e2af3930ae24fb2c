-- The lots of a payment, in the order in which credits are taken back of them: the reverse of that
-- in which they pay, so that what ends last goes first. What a plan rolled over of them is among
-- them, because it is the same credits. given: by the payment itself; 0 for what was rolled over,
-- and for what a dispute that was won gave again. has_lapsed: it has ended, and nothing rolls over.
WITH RECURSIVE rolled AS MATERIALIZED (
    SELECT rests.id AS grant_id, rests.amount_microcredits, rests.revoked_microcredits,
        entries.grant_id AS of_grant_id
    FROM grants AS rests
    JOIN ledger_entries AS entries
        ON entries.change_id = substring(rests.business_key FROM '^rollover:(.*)$')::uuid
        AND entries.kind = 'expire'
    WHERE rests.account_id = (SELECT account_id FROM billing_transactions WHERE id = $1)
        AND rests.source = 'rollover'
), family AS (
    SELECT grant_id, microcredits::bigint AS given FROM paid_lots WHERE transaction_id = $1
    UNION ALL
    SELECT rolled.grant_id, 0::bigint
    FROM family JOIN rolled ON rolled.of_grant_id = family.grant_id
)
SELECT
    grants.id AS grant_id,
    family.given AS given_microcredits,
    grants.expired_microcredits + grants.revoked_microcredits AS withdrawn_microcredits,
    coalesce((
        SELECT sum(CASE kind WHEN 'paid' THEN microcredits ELSE -microcredits END)
        FROM debt_entries
        WHERE debt_entries.account_id = grants.account_id AND debt_entries.grant_id = grants.id
    ), 0)::bigint AS debt_paid_microcredits,
    coalesce((
        SELECT sum(rolled.amount_microcredits) FROM rolled WHERE rolled.of_grant_id = grants.id
    ), 0)::bigint AS rolled_microcredits,
    grants.priority,
    coalesce(grants.expires_at <= now(), false) AND NOT (
        grants.source IN ('plan', 'rollover')
        AND EXISTS (
            -- as in rollover_due.sql
            SELECT FROM accounts
            JOIN plans ON plans.id = accounts.plan_id
            WHERE accounts.id = grants.account_id
                AND accounts.period_end_at IS NOT NULL
                AND plans.spec -> 'rollover_microcredits_max' IS NOT NULL
                AND plans.spec ->> 'rollover_microcredits_max' IS DISTINCT FROM '0'
                AND grants.rollovers < coalesce((plans.spec ->> 'rollover_periods')::integer, 1)
        )
    ) AS has_lapsed
FROM family
JOIN grants ON grants.id = family.grant_id
ORDER BY grants.priority DESC, grants.expires_at DESC NULLS FIRST, grants.created_at DESC,
    grants.id DESC
