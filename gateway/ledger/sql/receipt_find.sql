-- A settled call with all that a receipt names: whose key, which route, which price was in force. No
-- row if it is another platform's or another account's ($3; NULL: any of the platform).
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
LEFT JOIN accounts ON accounts.id = settlements.account_id
LEFT JOIN routes ON routes.id = settlements.route_id
LEFT JOIN price_versions ON price_versions.id = settlements.price_version
LEFT JOIN api_keys ON api_keys.id = settlements.key_id
WHERE settlements.platform_id = $1
    AND settlements.call_id = $2
    AND ($3::bigint IS NULL OR settlements.account_id = $3)
