-- I1, the Postgres half: each lot's sums are those of its entries, and no more left it than it was
-- given. A late correction takes like a settlement, or gives like a refund; an adjustment gives, or
-- takes like a revocation. Answers what disagrees.
SELECT
    grants.id AS grant_id,
    grants.account_id,
    grants.amount_microcredits,
    grants.credited_microcredits,
    grants.settled_microcredits,
    grants.expired_microcredits,
    grants.revoked_microcredits,
    coalesce(entries.granted, 0) AS granted_by_ledger,
    coalesce(entries.credited, 0) AS credited_by_ledger,
    coalesce(entries.settled, 0) AS settled_by_ledger,
    coalesce(entries.expired, 0) AS expired_by_ledger,
    coalesce(entries.revoked, 0) AS revoked_by_ledger
FROM grants
LEFT JOIN (
    SELECT
        grant_id,
        coalesce(sum(microcredits) FILTER (WHERE kind = 'grant'), 0)::bigint AS granted,
        coalesce(sum(microcredits) FILTER (
            WHERE kind = 'refund' OR kind IN ('adjust', 'late') AND microcredits > 0
        ), 0)::bigint AS credited,
        coalesce(-sum(microcredits) FILTER (
            WHERE kind = 'settle' OR kind = 'late' AND microcredits < 0
        ), 0)::bigint AS settled,
        coalesce(-sum(microcredits) FILTER (WHERE kind = 'expire'), 0)::bigint AS expired,
        coalesce(-sum(microcredits) FILTER (
            WHERE kind = 'revoke' OR kind = 'adjust' AND microcredits < 0
        ), 0)::bigint AS revoked
    FROM ledger_entries
    GROUP BY grant_id
) AS entries ON entries.grant_id = grants.id
WHERE grants.amount_microcredits IS DISTINCT FROM entries.granted
    OR grants.credited_microcredits IS DISTINCT FROM entries.credited
    OR grants.settled_microcredits IS DISTINCT FROM entries.settled
    OR grants.expired_microcredits IS DISTINCT FROM entries.expired
    OR grants.revoked_microcredits IS DISTINCT FROM entries.revoked
    OR grants.settled_microcredits + grants.expired_microcredits + grants.revoked_microcredits
        > grants.amount_microcredits + grants.credited_microcredits
ORDER BY grants.id
LIMIT $1
