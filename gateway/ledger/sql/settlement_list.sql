-- The last calls of an account, newest first. Ids begin with the time, so the newest are at the
-- index's end.
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
WHERE account_id = $1
ORDER BY settlements.call_id DESC
LIMIT $2
