-- How far accounts have moved through graduated tiers, by route and unit, since the moments in $2:
-- the sum of what each settlement says of it, as in "token=30;token.tiers=25". The moments are
-- exact to the millisecond, as the windows in Redis are. Such settlements have an index of their
-- own.
SELECT
    settlements.account_id,
    settlements.route_id,
    moved.parts[1] AS unit,
    sum(moved.parts[2]::numeric) AS units
FROM unnest($1::bigint[], $2::bigint[]) AS wanted (account_id, since_ms)
JOIN settlements
    ON settlements.account_id = wanted.account_id
    AND settlements.settled_at >= from_ms(wanted.since_ms)
    AND settlements.units LIKE '%.tiers=%'
CROSS JOIN LATERAL
    regexp_matches(settlements.units, '([a-z0-9_]+)\.tiers=([0-9]+)', 'g') AS moved (parts)
GROUP BY settlements.account_id, settlements.route_id, moved.parts[1]
