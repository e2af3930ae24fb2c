-- The last calls of an account, newest first, or the one of this id. Ids begin with the time, so
-- the newest are at the index's end.
SELECT
    replace(call_id::text, '-', '') AS call_id,
    account_id,
    key_id,
    route_id,
    price_version,
    to_ms(admitted_at) AS admitted_ms,
    to_ms(settled_at) AS settled_ms,
    ending,
    status,
    units,
    flags,
    held_microcredits,
    charged_microcredits,
    uncollected_microcredits,
    session
FROM settlements
WHERE account_id = $1 AND ($3::uuid IS NULL OR settlements.call_id = $3)
ORDER BY settlements.call_id DESC
LIMIT $2
