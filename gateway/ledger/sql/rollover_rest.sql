-- The rest of a lot that an expiry took, if it was one of a plan.
SELECT
    -entries.microcredits AS microcredits,
    grants.rollovers,
    grants.priority,
    to_ms(grants.expires_at) AS expires_ms
FROM ledger_changes AS changes
JOIN ledger_entries AS entries ON entries.change_id = changes.id
JOIN grants ON grants.id = entries.grant_id
WHERE changes.id = $1
    AND changes.kind = 'expire'
    AND grants.source IN ('plan', 'rollover')
LIMIT 1
