-- What a call moved in which lots, and what kind of lots they are. Entries have the time of what
-- made them (the call's $2, a change's created_at), which the block range index finds.
WITH moments AS MATERIALIZED (
    SELECT from_ms($2) AS moment
    UNION
    SELECT created_at FROM ledger_changes WHERE call_id = $1 AND kind IN ('late', 'refund')
)
SELECT
    entries.kind,
    entries.grant_id,
    grants.source,
    entries.microcredits,
    to_ms(entries.created_at) AS created_ms,
    coalesce(ledger_changes.note, '') AS note
FROM moments
JOIN ledger_entries AS entries ON entries.created_at = moments.moment
LEFT JOIN grants ON grants.id = entries.grant_id
LEFT JOIN ledger_changes ON ledger_changes.id = entries.change_id
WHERE entries.call_id = $1
ORDER BY entries.id
