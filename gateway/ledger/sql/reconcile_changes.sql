-- Of the changes that Redis knows: what Postgres has of them. Entries have their change's time, by
-- which they are found: the time is indexed, the change is not.
SELECT
    replace(ledger_changes.id::text, '-', '') AS change_id,
    ledger_changes.account_id,
    ledger_changes.kind,
    coalesce(-sum(ledger_entries.microcredits), 0)::bigint AS taken_microcredits
FROM ledger_changes
LEFT JOIN ledger_entries
    ON ledger_entries.created_at = ledger_changes.created_at
    AND ledger_entries.change_id = ledger_changes.id
WHERE ledger_changes.id = ANY ($1::uuid[])
GROUP BY ledger_changes.id
