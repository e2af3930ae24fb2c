-- A lot and its ledger entry, or neither.
WITH granted AS (
    INSERT INTO grants (
        platform_id, account_id, source, amount_microcredits,
        effective_at, expires_at, priority, note
    )
    SELECT platform_id, id, $2, $3, coalesce(from_ms($4), now()), from_ms($5), $6, $7
    FROM accounts WHERE id = $1
    RETURNING id, platform_id, account_id, amount_microcredits, created_at
), entered AS (
    INSERT INTO ledger_entries (platform_id, account_id, grant_id, kind, microcredits, created_at)
    SELECT platform_id, account_id, id, 'grant', amount_microcredits, created_at FROM granted
)
SELECT id FROM granted
