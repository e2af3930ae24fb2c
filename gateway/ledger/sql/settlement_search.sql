-- A platform's calls, newest first, whose ids are in a range (ids begin with their time, so a time
-- is a range of them, and of partitions). At most $4 rows are looked at: the last one of so many
-- comes back even if it does not match, to say where to go on.
SELECT
    replace(looked.call_id::text, '-', '') AS call_id,
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
    session,
    matches,
    place
FROM (
    SELECT settlements.*, row_number() OVER (ORDER BY settlements.call_id DESC) AS place
    FROM settlements
    WHERE platform_id = $1
        AND settlements.call_id >= $2
        AND settlements.call_id < $3
    ORDER BY settlements.call_id DESC
    LIMIT $4::bigint
) AS looked
CROSS JOIN LATERAL (
    SELECT ($6::bigint IS NULL OR key_id = $6)
        AND ($7::bigint IS NULL OR route_id = $7)
        AND ($8::text IS NULL OR ending = $8)
        AND ($9::smallint IS NULL OR status = $9)
        AND ($10::text IS NULL OR session = $10) AS matches
) AS judged
WHERE matches OR place = $4::bigint
ORDER BY looked.call_id DESC
LIMIT $5
