-- What the sessions have spent that were used since a moment, by key, and in which keys that counts
-- (its own and those that it was carved from), where there is a cap on what they may: Redis forgets
-- a session that was not used for as long as from that moment to now, so what is before such a
-- pause does not count. An id of a call begins with its time, and no call runs longer than a day:
-- that names the partitions to look into.
WITH capped AS MATERIALIZED (
    SELECT accounts.id AS account_id
    FROM accounts
    JOIN plans ON plans.id = accounts.plan_id
    WHERE plans.spec -> 'caps' ->> 'session' <> '0'
    UNION
    SELECT account_id FROM api_keys WHERE spec -> 'caps' ->> 'session' <> '0'
), active AS MATERIALIZED (
    SELECT DISTINCT account_id, session
    FROM settlements
    WHERE account_id IN (SELECT account_id FROM capped)
        AND session <> ''
        AND settled_at >= from_ms($1)
        AND call_id >= first_call_id((from_ms($1) - interval '1 day') AT TIME ZONE 'UTC')
), used AS (
    SELECT
        settlements.account_id, settlements.session, settlements.key_id,
        settlements.charged_microcredits, settlements.admitted_at,
        settlements.admitted_at - max(settlements.settled_at) OVER (
            PARTITION BY settlements.account_id, settlements.session
            ORDER BY settlements.admitted_at, settlements.call_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS pause
    FROM active
    JOIN settlements
        ON settlements.account_id = active.account_id
        AND settlements.session = active.session
        AND settlements.session <> ''
), begun AS (
    SELECT
        used.*,
        max(admitted_at) FILTER (WHERE pause > now() - from_ms($1)) OVER (
            PARTITION BY account_id, session
        ) AS begun_at
    FROM used
)
SELECT
    account_id,
    session,
    key_id,
    ARRAY(
        WITH RECURSIVE lineage (key_id) AS (
            SELECT begun.key_id
            UNION ALL
            SELECT api_keys.parent_key_id
            FROM lineage
            JOIN api_keys ON api_keys.id = lineage.key_id
            WHERE api_keys.parent_key_id IS NOT NULL
        )
        SELECT key_id FROM lineage
    ) AS counts_in,
    sum(charged_microcredits)::bigint AS spent_microcredits
FROM begun
WHERE begun_at IS NULL OR admitted_at >= begun_at
GROUP BY account_id, session, key_id
