-- Credits of one call go back to lots: the change, its entries and the lots' sums, or nothing if
-- this call has such a change. A lot that had ended has something left again, which has to be
-- withdrawn: it is not closed any more.
WITH changed AS (
    INSERT INTO ledger_changes (id, platform_id, account_id, kind, call_id, note, created_at)
    SELECT $2, platform_id, account_id, $3, call_id, $4, now()
    FROM settlements
    WHERE call_id = $1
    ON CONFLICT DO NOTHING
    RETURNING id, platform_id, account_id, kind, call_id, created_at
), given AS MATERIALIZED (
    SELECT grant_id, sum(microcredits)::bigint AS microcredits
    FROM unnest($5::bigint[], $6::bigint[]) AS given (grant_id, microcredits)
    WHERE EXISTS (SELECT FROM changed)
    GROUP BY grant_id
), entries AS (
    INSERT INTO ledger_entries (
        platform_id, account_id, grant_id, call_id, kind, microcredits, created_at, change_id
    )
    SELECT changed.platform_id, changed.account_id, given.grant_id, changed.call_id, changed.kind,
        given.microcredits, changed.created_at, changed.id
    FROM changed CROSS JOIN given
), locked AS MATERIALIZED (
    SELECT grants.id, given.microcredits
    FROM grants
    JOIN given ON given.grant_id = grants.id
    ORDER BY grants.id
    FOR NO KEY UPDATE OF grants
), moved AS (
    UPDATE grants SET
        credited_microcredits = credited_microcredits + locked.microcredits,
        closed = false
    FROM locked
    WHERE grants.id = locked.id
    RETURNING grants.id
)
SELECT
    (SELECT count(*) FROM changed) = 1 AS changed,
    (SELECT count(*) FROM given) - (SELECT count(*) FROM moved) AS grants_missing
