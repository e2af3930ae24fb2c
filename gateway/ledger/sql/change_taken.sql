-- What a change took from lots of an account; no row: there is no such change of it here.
SELECT coalesce(-sum(ledger_entries.microcredits), 0)::bigint AS taken_microcredits
FROM ledger_changes
LEFT JOIN ledger_entries ON ledger_entries.change_id = ledger_changes.id
WHERE ledger_changes.id = $1 AND ledger_changes.account_id = $2
GROUP BY ledger_changes.id
