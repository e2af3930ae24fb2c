-- Whose credits have fallen below the mark of their plan, once per fall: the account remembers on
-- which side it is, and is changed by one who looks at a time. Without a plan or a mark nobody is
-- low. Overage is not counted as something left.
WITH levels AS MATERIALIZED (
    SELECT
        accounts.id AS account_id,
        accounts.low_credits AS was_low,
        coalesce((plans.spec ->> 'low_credits_microcredits')::bigint, 0) AS mark,
        (
            SELECT coalesce(sum(
                grants.amount_microcredits + grants.credited_microcredits
                - grants.settled_microcredits - grants.expired_microcredits
                - grants.revoked_microcredits
            ), 0)::bigint
            FROM grants
            WHERE grants.account_id = accounts.id
                AND NOT grants.closed
                AND grants.source <> 'overage'
                AND grants.effective_at <= now()
                AND (grants.expires_at IS NULL OR grants.expires_at > now())
        ) AS available
    FROM accounts
    LEFT JOIN plans ON plans.id = accounts.plan_id
    WHERE accounts.low_credits OR plans.spec ->> 'low_credits_microcredits' <> '0'
), turned AS MATERIALIZED (
    SELECT accounts.id, accounts.platform_id, levels.available, levels.mark
    FROM accounts
    JOIN levels ON levels.account_id = accounts.id AND levels.was_low <> (available < mark)
    WHERE accounts.low_credits <> (levels.available < levels.mark)
    ORDER BY accounts.id
    FOR NO KEY UPDATE OF accounts
), marked AS (
    UPDATE accounts SET low_credits = NOT accounts.low_credits
    FROM turned
    WHERE accounts.id = turned.id
    RETURNING accounts.id, accounts.low_credits
)
INSERT INTO account_events (platform_id, account_id, kind, business_key, detail)
SELECT
    turned.platform_id,
    turned.id,
    'low_credits',
    'low_credits:' || turned.id || ':' || pg_current_xact_id(),
    jsonb_build_object(
        'available_microcredits', turned.available::text,
        'mark_microcredits', turned.mark::text
    )
FROM turned
JOIN marked ON marked.id = turned.id AND marked.low_credits
ORDER BY turned.id
RETURNING
    id AS event_id, platform_id, account_id, kind, detail, to_ms(created_at) AS created_ms,
    coalesce(to_ms(delivered_at), 0) AS delivered_ms
