-- Of what an account owes so much is owed no more ($3 at most), because credits come back to it
-- ($2); how much that is. No row: it owes nothing.
WITH debt AS MATERIALIZED (
    SELECT account_id, platform_id, least(owed_microcredits, $3::bigint) AS microcredits
    FROM account_debts
    WHERE account_id = $1 AND owed_microcredits > 0
    FOR NO KEY UPDATE
), lowered AS (
    UPDATE account_debts SET owed_microcredits = owed_microcredits - debt.microcredits
    FROM debt
    WHERE account_debts.account_id = debt.account_id
), entered AS (
    INSERT INTO debt_entries (platform_id, account_id, kind, microcredits, clawback_id)
    SELECT platform_id, account_id, 'forgiven', microcredits, $2 FROM debt
)
SELECT microcredits FROM debt
