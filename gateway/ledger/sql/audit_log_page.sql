-- What people changed on a platform, newest first, until before a moment and an entry. At most $5
-- rows are looked at: the last one of so many comes back even if it does not match, to say where to
-- go on.
SELECT
    id AS entry_id,
    account_id,
    (extract(epoch FROM at) * 1000000)::bigint AS at_us,
    actor,
    address,
    request_id,
    action,
    resource,
    resource_id,
    before,
    after,
    matches,
    place
FROM (
    SELECT audit_log.*, row_number() OVER (ORDER BY at DESC, id DESC) AS place
    FROM audit_log
    WHERE platform_id = $1
        AND at >= from_ms($2)
        AND (at, id) < ('epoch'::timestamptz + $3 * interval '1 microsecond', $4::bigint)
    ORDER BY at DESC, id DESC
    LIMIT $5::bigint
) AS looked
CROSS JOIN LATERAL (
    SELECT ($7::text IS NULL OR actor = $7)
        AND ($8::text IS NULL OR resource = $8)
        AND ($9::text IS NULL OR resource_id = $9)
        AND ($10::bigint IS NULL OR account_id = $10) AS matches
) AS judged
WHERE matches OR place = $5::bigint
ORDER BY at DESC, id DESC
LIMIT $6
