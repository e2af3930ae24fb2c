-- What a call took from each lot: by its settlement, and altogether, with its later correction. Its
-- entries have the time of what made them, which the block range index finds.
WITH moments AS MATERIALIZED (
    SELECT settled_at AS moment FROM settlements WHERE call_id = $1
    UNION
    SELECT created_at FROM ledger_changes WHERE call_id = $1 AND kind = 'late'
)
SELECT
    entries.grant_id,
    coalesce(-sum(entries.microcredits) FILTER (WHERE entries.kind = 'settle'), 0)::bigint
        AS settled_microcredits,
    coalesce(-sum(entries.microcredits), 0)::bigint AS taken_microcredits,
    coalesce(grants.revoked_at IS NOT NULL OR grants.expires_at <= now(), false) AS ended,
    grants.priority
FROM moments
JOIN ledger_entries AS entries ON entries.created_at = moments.moment
JOIN grants ON grants.id = entries.grant_id
WHERE entries.call_id = $1 AND entries.kind IN ('settle', 'late')
GROUP BY entries.grant_id, grants.id
ORDER BY min(entries.id)
