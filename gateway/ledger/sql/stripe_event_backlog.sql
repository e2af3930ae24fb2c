-- How many events of each of these platforms wait, counted to a limit: beyond it nothing differs.
SELECT platform_id, (
    SELECT count(*)::integer FROM (
        SELECT FROM stripe_events
        WHERE stripe_events.platform_id = named.platform_id AND status = 'waiting'
        LIMIT $2
    ) AS looked_at
) AS waiting
FROM unnest($1::bigint[]) AS named (platform_id)
