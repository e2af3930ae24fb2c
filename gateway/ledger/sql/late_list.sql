-- What Redis was not told of yet, of a shard or of some accounts.
SELECT
    replace(call_id::text, '-', '') AS call_id,
    shard,
    platform_id,
    account_id,
    key_id,
    route_id,
    price_version,
    session,
    to_ms(admitted_at) AS admitted_ms,
    to_ms(ended_at) AS ended_ms,
    ending,
    status,
    units,
    flags,
    held_microcredits,
    owed_microcredits
FROM late_settlements
WHERE ($1::integer IS NULL OR shard = $1)
    AND ($2::bigint[] IS NULL OR account_id = ANY ($2::bigint[]))
ORDER BY late_settlements.call_id
