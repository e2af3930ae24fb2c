-- Who has used 70, 90 or 100 % of what the plan gave for this period, and has not been told of it.
-- The business key makes it once per period and mark, whoever looks; they are inserted in one
-- order, for others may look at the same time.
INSERT INTO account_events (platform_id, account_id, kind, business_key, detail)
SELECT
    crossed.platform_id, crossed.account_id, 'threshold', crossed.business_key, crossed.detail
FROM (
    SELECT
        accounts.platform_id,
        accounts.id AS account_id,
        'threshold:' || accounts.id || ':' || to_ms(grants.effective_at) || ':' || percent
            AS business_key,
        percent,
        jsonb_build_object(
            'percent', percent,
            'settled_microcredits', grants.settled_microcredits::text,
            'amount_microcredits', grants.amount_microcredits::text,
            'period_end_ms', to_ms(grants.expires_at)
        ) AS detail
    FROM accounts
    JOIN grants ON grants.account_id = accounts.id AND grants.source = 'plan'
    CROSS JOIN unnest(ARRAY[70, 90, 100]) AS percent
    WHERE accounts.period_end_at IS NOT NULL
        AND (
            grants.effective_at = accounts.period_start_at
            OR grants.expires_at = accounts.period_start_at
            AND accounts.period_start_at > now() - interval '1 day'
        )
        AND grants.settled_microcredits > 0
        AND grants.settled_microcredits * 100 >= grants.amount_microcredits * percent
) AS crossed
WHERE NOT EXISTS (
    SELECT FROM account_events AS told WHERE told.business_key = crossed.business_key
)
ORDER BY crossed.account_id, crossed.percent
ON CONFLICT (business_key) DO NOTHING
RETURNING
    id AS event_id, platform_id, account_id, kind, detail, to_ms(created_at) AS created_ms,
    coalesce(to_ms(delivered_at), 0) AS delivered_ms
