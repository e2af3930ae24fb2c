-- What a call took from each lot: by its settlement, and altogether, with its later correction. A
-- settled call's entries have its settled_at, which the block range index finds; but what the
-- server has not summarised yet (of a minute, at most) is read.
WITH entries AS (
    SELECT settled.id, settled.grant_id, settled.kind, settled.microcredits
    FROM settlements
    JOIN ledger_entries AS settled ON settled.created_at = settlements.settled_at
    WHERE settlements.call_id = $1 AND settled.call_id = $1 AND settled.kind = 'settle'
    UNION ALL
    SELECT late.id, late.grant_id, late.kind, late.microcredits
    FROM ledger_changes AS changes
    JOIN ledger_entries AS late ON late.change_id = changes.id
    WHERE changes.call_id = $1 AND changes.kind = 'late'
)
SELECT
    entries.grant_id,
    coalesce(-sum(entries.microcredits) FILTER (WHERE entries.kind = 'settle'), 0)::bigint
        AS settled_microcredits,
    coalesce(-sum(entries.microcredits), 0)::bigint AS taken_microcredits,
    coalesce(grants.revoked_at IS NOT NULL OR grants.expires_at <= now(), false) AS ended,
    grants.priority
FROM entries
JOIN grants ON grants.id = entries.grant_id
GROUP BY entries.grant_id, grants.id
ORDER BY min(entries.id)
