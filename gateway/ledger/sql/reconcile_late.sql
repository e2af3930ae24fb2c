-- What left each lot after a moment, without the calls and changes that were known then.
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
GROUP BY grant_id
