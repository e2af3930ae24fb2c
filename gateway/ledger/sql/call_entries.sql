-- Every ledger entry of a call: its settlement's, its correction's, its refund's, and the lot that
-- was given in place of ended ones. Entries have the time of what made them, which the block range
-- index finds.
WITH moments AS MATERIALIZED (
    SELECT settled_at AS moment FROM settlements WHERE call_id = $1
    UNION
    SELECT created_at FROM ledger_changes WHERE call_id = $1 AND kind IN ('late', 'refund')
)
SELECT
    entries.kind,
    entries.grant_id,
    entries.microcredits,
    to_ms(entries.created_at) AS created_ms,
    coalesce(ledger_changes.note, '') AS note
FROM moments
JOIN ledger_entries AS entries ON entries.created_at = moments.moment
LEFT JOIN ledger_changes ON ledger_changes.id = entries.change_id
WHERE entries.call_id = $1
ORDER BY entries.id
