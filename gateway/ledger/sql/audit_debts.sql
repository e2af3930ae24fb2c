-- I1 for what is taken back: what an account owes is the sum of its entries; what a lot paid left
-- it when it was made; what a step of taking back took, and what became owed by it, are what the
-- ledger says, as is what a step gave again; and of a payment no more is to be gone than it gave.
WITH owed AS (
    SELECT account_id,
        sum(CASE kind WHEN 'owed' THEN microcredits ELSE -microcredits END)::bigint AS microcredits
    FROM debt_entries
    GROUP BY account_id
), paid AS (
    SELECT account_id, grant_id, sum(microcredits)::bigint AS microcredits
    FROM debt_entries
    WHERE kind = 'paid'
    GROUP BY account_id, grant_id
), posted AS (
    SELECT entries.grant_id, -sum(entries.microcredits)::bigint AS microcredits
    FROM ledger_entries AS entries
    JOIN grants ON grants.id = entries.grant_id AND grants.created_at = entries.created_at
    WHERE entries.kind = 'adjust'
    GROUP BY entries.grant_id
), moved AS (
    SELECT clawbacks.id, coalesce(sum(entries.microcredits), 0)::bigint AS microcredits
    FROM clawbacks
    CROSS JOIN jsonb_array_elements(clawbacks.parts) AS part
    JOIN ledger_entries AS entries ON entries.change_id = (part ->> 'change')::uuid
    GROUP BY clawbacks.id
), entered AS (
    SELECT clawback_id, sum(microcredits)::bigint AS microcredits
    FROM debt_entries
    WHERE clawback_id IS NOT NULL
    GROUP BY clawback_id
), steps AS (
    SELECT
        clawbacks.*,
        coalesce(moved.microcredits, 0) AS moved,
        coalesce(entered.microcredits, 0) AS entered,
        coalesce((
            SELECT grants.amount_microcredits FROM grants
            WHERE grants.business_key = 'clawback:' || replace(clawbacks.id::text, '-', '')
        ), 0) AS granted
    FROM clawbacks
    LEFT JOIN moved ON moved.id = clawbacks.id
    LEFT JOIN entered ON entered.clawback_id = clawbacks.id
    WHERE clawbacks.is_done
)
SELECT * FROM (
    SELECT 'owed' AS wrong, coalesce(owed.account_id, debts.account_id) AS account_id,
        'debt' AS subject,
        coalesce(owed.microcredits, 0) AS expected_microcredits,
        coalesce(debts.owed_microcredits, 0)::bigint AS found_microcredits
    FROM owed
    FULL JOIN account_debts AS debts ON debts.account_id = owed.account_id
    UNION ALL
    SELECT 'paid', paid.account_id, 'grant ' || coalesce(paid.grant_id, posted.grant_id),
        coalesce(paid.microcredits, 0), coalesce(posted.microcredits, 0)
    FROM paid
    FULL JOIN posted ON posted.grant_id = paid.grant_id
    UNION ALL
    SELECT 'step', account_id, 'clawback ' || replace(id::text, '-', ''),
        CASE WHEN amount_microcredits > 0 THEN taken_microcredits ELSE
            taken_microcredits + owed_microcredits END,
        CASE WHEN amount_microcredits > 0 THEN -moved ELSE moved + granted + entered END
    FROM steps
    UNION ALL
    SELECT 'step', account_id, 'debt of clawback ' || replace(id::text, '-', ''),
        owed_microcredits, entered
    FROM steps
    WHERE amount_microcredits > 0
    UNION ALL
    SELECT 'payment', min(clawbacks.account_id), 'payment ' || clawbacks.transaction_id,
        least(greatest(sum(amount_microcredits), 0), given.microcredits)::bigint,
        sum(amount_microcredits)::bigint
    FROM clawbacks
    JOIN (
        SELECT transaction_id, sum(microcredits) AS microcredits
        FROM paid_lots
        GROUP BY transaction_id
    ) AS given ON given.transaction_id = clawbacks.transaction_id
    GROUP BY clawbacks.transaction_id, given.microcredits
) AS held
WHERE expected_microcredits <> found_microcredits
ORDER BY account_id, subject
LIMIT $1
