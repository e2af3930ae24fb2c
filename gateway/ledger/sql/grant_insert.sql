-- A lot and its ledger entry, or neither. With a business key ($8) it is given once: the answer is
-- then the lot that has it. No row: there is no such account, or another transaction has given the
-- lot since this statement began.
WITH granted AS (
    INSERT INTO grants (
        platform_id, account_id, source, amount_microcredits,
        effective_at, expires_at, priority, note, business_key, rollovers
    )
    SELECT platform_id, id, $2, $3, coalesce(from_ms($4), now()), from_ms($5), $6, $7, $8, $9
    FROM accounts WHERE id = $1
    ON CONFLICT (business_key) DO NOTHING
    RETURNING id, platform_id, account_id, amount_microcredits, created_at
), entered AS (
    INSERT INTO ledger_entries (platform_id, account_id, grant_id, kind, microcredits, created_at)
    SELECT platform_id, account_id, id, 'grant', amount_microcredits, created_at FROM granted
)
SELECT id FROM granted
UNION ALL
SELECT id FROM grants WHERE business_key = $8
LIMIT 1
