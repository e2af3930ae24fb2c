-- What left each lot after a moment, without the calls and changes that were known then. What a
-- lot paid of a debt when it was made left it before anybody was told of it.
SELECT
    grant_id,
    coalesce(-sum(microcredits) FILTER (WHERE kind IN ('settle', 'late')), 0)::bigint AS settled,
    coalesce(-sum(microcredits) FILTER (WHERE kind NOT IN ('settle', 'late')), 0)::bigint
        AS withdrawn
FROM ledger_entries
WHERE created_at > from_ms($1)
    AND grant_id = ANY ($2::bigint[])
    AND microcredits < 0
    AND CASE
        WHEN change_id IS NULL THEN call_id <> ALL ($3::uuid[])
        ELSE change_id <> ALL ($4::uuid[])
    END
    AND NOT (kind = 'adjust' AND EXISTS (
        SELECT FROM grants
        WHERE grants.id = ledger_entries.grant_id
            AND grants.created_at = ledger_entries.created_at
    ))
GROUP BY grant_id
