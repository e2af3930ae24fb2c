-- A lot in the place of ended ones that a refunded call had drawn on: until its account's period
-- ends, for ever without one.
WITH granted AS (
    INSERT INTO grants (
        platform_id, account_id, source, amount_microcredits,
        effective_at, expires_at, priority, note, business_key
    )
    SELECT platform_id, id, 'refund', $2,
        now(), CASE WHEN period_end_at > now() THEN period_end_at END, $4, $5,
        'refund:' || replace($3::uuid::text, '-', '')
    FROM accounts
    WHERE id = $1
    RETURNING id, platform_id, account_id, amount_microcredits, created_at
), entered AS (
    INSERT INTO ledger_entries (
        platform_id, account_id, grant_id, call_id, kind, microcredits, created_at
    )
    SELECT platform_id, account_id, id, $3, 'grant', amount_microcredits, created_at FROM granted
)
SELECT id FROM granted
