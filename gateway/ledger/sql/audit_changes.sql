-- I1 for changes: each has its entries, each entry its change, of one account and kind; and a call
-- was given back no more than it paid. Answers what disagrees, with what is wrong of the three.
WITH entries AS (
    SELECT change_id, min(account_id) AS account_id, min(kind) AS kind, max(kind) AS other_kind,
        sum(microcredits)::bigint AS microcredits
    FROM ledger_entries
    WHERE change_id IS NOT NULL
    GROUP BY change_id
), returned AS (
    SELECT call_id, min(account_id) AS account_id, sum(microcredits)::bigint AS microcredits
    FROM ledger_entries
    WHERE call_id IN (SELECT call_id FROM ledger_changes WHERE kind IN ('late', 'refund'))
    GROUP BY call_id
    HAVING sum(microcredits) > 0
)
SELECT
    replace(coalesce(changes.id, entries.change_id)::text, '-', '') AS id,
    coalesce(changes.account_id, entries.account_id) AS account_id,
    CASE WHEN changes.id IS NULL THEN 'unrecorded' ELSE 'unlike' END AS wrong,
    coalesce(entries.microcredits, 0) AS microcredits
FROM ledger_changes AS changes
FULL JOIN entries ON entries.change_id = changes.id
-- A refund of nothing but ended lots has no entry.
WHERE changes.id IS NULL
    OR entries.change_id IS NULL AND changes.kind <> 'refund'
    OR entries.account_id <> changes.account_id
    OR entries.kind <> changes.kind
    OR entries.other_kind <> changes.kind
UNION ALL
SELECT replace(call_id::text, '-', ''), account_id, 'returned', microcredits
FROM returned
ORDER BY 1
LIMIT $1
