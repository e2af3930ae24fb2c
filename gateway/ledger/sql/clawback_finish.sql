-- What a step has taken, and what of it could not be because it was spent: that is owed from now
-- on. Once: a step that is done stays as it is.
WITH finished AS (
    UPDATE clawbacks SET
        taken_microcredits = $2, owed_microcredits = $3, parts = $4, is_done = true
    WHERE id = $1 AND NOT is_done
    RETURNING id, platform_id, account_id, transaction_id, cause, amount_microcredits,
        taken_microcredits, owed_microcredits
), owing AS (
    INSERT INTO account_debts (account_id, platform_id, owed_microcredits)
    SELECT account_id, platform_id, owed_microcredits FROM finished WHERE owed_microcredits > 0
    ON CONFLICT (account_id) DO UPDATE
        SET owed_microcredits = account_debts.owed_microcredits + excluded.owed_microcredits
), entered AS (
    INSERT INTO debt_entries (platform_id, account_id, kind, microcredits, clawback_id)
    SELECT platform_id, account_id, 'owed', owed_microcredits, id
    FROM finished
    WHERE owed_microcredits > 0
)
INSERT INTO account_events (platform_id, account_id, kind, business_key, detail)
SELECT platform_id, account_id, 'credits_taken_back',
    'credits_taken_back:' || replace(id::text, '-', ''),
    jsonb_build_object(
        'transaction_id', transaction_id,
        'cause', cause,
        'amount_microcredits', amount_microcredits::text,
        'taken_microcredits', taken_microcredits::text,
        'owed_microcredits', owed_microcredits::text
    )
FROM finished
ON CONFLICT (business_key) DO NOTHING
