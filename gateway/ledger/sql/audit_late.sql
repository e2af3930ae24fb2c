-- What calls settled after a moment took from each grant, without the calls that were known then.
SELECT grant_id, -sum(microcredits)::bigint AS microcredits
FROM ledger_entries
WHERE kind = 'settle'
    AND created_at > from_ms($1)
    AND grant_id = ANY ($2::bigint[])
    AND call_id <> ALL ($3::uuid[])
GROUP BY grant_id
