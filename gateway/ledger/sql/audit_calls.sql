-- I2, the Postgres half: what a settlement charged is what its entries took, and no entry lacks its
-- settlement.
SELECT
    replace(coalesce(settlements.call_id, entries.call_id)::text, '-', '') AS call_id,
    coalesce(settlements.account_id, entries.account_id) AS account_id,
    settlements.charged_microcredits,
    coalesce(entries.posted, 0) AS posted_microcredits
FROM settlements
FULL JOIN (
    SELECT call_id, min(account_id) AS account_id, -sum(microcredits)::bigint AS posted
    FROM ledger_entries
    WHERE kind = 'settle'
    GROUP BY call_id
) AS entries ON entries.call_id = settlements.call_id
WHERE settlements.charged_microcredits IS DISTINCT FROM coalesce(entries.posted, 0)
    OR entries.account_id <> settlements.account_id
ORDER BY 1
LIMIT $1
