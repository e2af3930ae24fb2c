-- What scripts took from lots apart from settling calls: changes, their entries and the lots' sums,
-- all or nothing.
--
-- Exactly once, as in settlement_record.sql: everything after `inserted` is computed from rows that
-- this very statement inserted. No deadlock, as there: changes by id, then grants by id.
--
-- Input: one array element per change and posting; a change with several is there several times.
WITH batch AS MATERIALIZED (
    SELECT * FROM unnest(
        $1::uuid[], $2::text[], $3::bigint[], $4::bigint[],
        $5::uuid[], $6::bigint[], $7::bigint[], $8::bigint[]
    ) AS batch (
        change_id, kind, platform_id, account_id,
        call_id, at_ms, grant_id, taken
    )
), inserted AS (
    INSERT INTO ledger_changes (id, platform_id, account_id, kind, call_id, created_at)
    SELECT DISTINCT ON (change_id)
        change_id, platform_id, account_id, kind, call_id, from_ms(at_ms)
    FROM batch
    ORDER BY change_id
    ON CONFLICT DO NOTHING
    RETURNING id
), fresh AS MATERIALIZED (
    SELECT batch.*
    FROM batch
    JOIN inserted ON inserted.id = batch.change_id
), entries AS (
    INSERT INTO ledger_entries (
        platform_id, account_id, grant_id, call_id, kind, microcredits, created_at, change_id
    )
    SELECT platform_id, account_id, grant_id, call_id, kind, -taken, from_ms(at_ms), change_id
    FROM fresh
), sums AS MATERIALIZED (
    SELECT
        grant_id,
        coalesce(sum(taken) FILTER (WHERE kind = 'late'), 0)::bigint AS settled,
        coalesce(sum(taken) FILTER (WHERE kind = 'expire'), 0)::bigint AS expired,
        coalesce(sum(taken) FILTER (WHERE kind IN ('revoke', 'adjust')), 0)::bigint AS revoked
    FROM fresh
    GROUP BY grant_id
), locked AS MATERIALIZED (
    SELECT grants.id, sums.settled, sums.expired, sums.revoked
    FROM grants
    JOIN sums ON sums.grant_id = grants.id
    ORDER BY grants.id
    FOR NO KEY UPDATE OF grants
), moved AS (
    UPDATE grants SET
        settled_microcredits = settled_microcredits + locked.settled,
        expired_microcredits = expired_microcredits + locked.expired,
        revoked_microcredits = revoked_microcredits + locked.revoked
    FROM locked
    WHERE grants.id = locked.id
    RETURNING grants.id
)
SELECT
    (SELECT count(*) FROM inserted) AS inserted,
    (SELECT count(*) FROM sums) - (SELECT count(*) FROM moved) AS grants_missing
