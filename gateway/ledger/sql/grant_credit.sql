-- An adjustment upwards: the change, its entry and the lot's sum, once per change id. A lot that
-- has ended takes none.
WITH adjusted AS MATERIALIZED (
    SELECT id, platform_id, account_id
    FROM grants
    WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
    FOR NO KEY UPDATE
), changed AS (
    INSERT INTO ledger_changes (id, platform_id, account_id, kind, note, created_at)
    SELECT $2, platform_id, account_id, 'adjust', $4, now()
    FROM adjusted
    ON CONFLICT DO NOTHING
    RETURNING id, platform_id, account_id, created_at
), entered AS (
    INSERT INTO ledger_entries (
        platform_id, account_id, grant_id, kind, microcredits, created_at, change_id
    )
    SELECT platform_id, account_id, $1, 'adjust', $3, created_at, id
    FROM changed
), moved AS (
    UPDATE grants SET credited_microcredits = credited_microcredits + $3
    WHERE id = (SELECT adjusted.id FROM adjusted) AND EXISTS (SELECT FROM changed)
)
SELECT account_id FROM adjusted
