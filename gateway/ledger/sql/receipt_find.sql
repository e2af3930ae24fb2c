-- A settled call with all that a receipt names: whose key, which route, which price was in force.
-- No row if it is another platform's or another account's ($3; NULL: any of the platform). The
-- joins are lateral so that each is one look-up: the planner, which can't know that partitions have
-- one call together, might read whole tables.
SELECT
    replace(settlements.call_id::text, '-', '') AS call_id,
    settlements.account_id,
    settlements.key_id,
    settlements.route_id,
    settlements.price_version,
    to_ms(settlements.admitted_at) AS admitted_ms,
    to_ms(settlements.settled_at) AS settled_ms,
    settlements.ending,
    settlements.status,
    settlements.units,
    settlements.flags,
    settlements.held_microcredits,
    settlements.charged_microcredits,
    settlements.uncollected_microcredits,
    settlements.session,
    accounts.name AS account_name,
    routes.name AS route_name,
    price_versions.spec AS price,
    api_keys.name AS key_name,
    api_keys.prefix AS key_prefix,
    api_keys.last4 AS key_last4
FROM settlements
LEFT JOIN LATERAL (SELECT * FROM accounts WHERE id = settlements.account_id LIMIT 1) AS accounts
    ON true
LEFT JOIN LATERAL (SELECT * FROM routes WHERE id = settlements.route_id LIMIT 1) AS routes
    ON true
LEFT JOIN LATERAL (
    SELECT * FROM price_versions WHERE id = settlements.price_version LIMIT 1
) AS price_versions ON true
LEFT JOIN LATERAL (SELECT * FROM api_keys WHERE id = settlements.key_id LIMIT 1) AS api_keys
    ON true
WHERE settlements.platform_id = $1
    AND settlements.call_id = $2
    AND ($3::bigint IS NULL OR settlements.account_id = $3)
