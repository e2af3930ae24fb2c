-- Who has used 70, 90 or 100 % of what the plan gave for this period, and has not been told of it.
-- What a change of plan gave within the period counts with it. Lots of a period that was paid for
-- outlast it a little, so the one before is looked at for a day. The business key makes it once per
-- period and mark, whoever looks; they are inserted in one order, for others may look at the same
-- time.
INSERT INTO account_events (platform_id, account_id, kind, business_key, detail)
SELECT
    crossed.platform_id, crossed.account_id, 'threshold', crossed.business_key, crossed.detail
FROM (
    SELECT
        platform_id,
        account_id,
        'threshold:' || account_id || ':' || to_ms(begins_at) || ':' || percent AS business_key,
        percent,
        jsonb_build_object(
            'percent', percent,
            'settled_microcredits', settled::text,
            'amount_microcredits', amount::text,
            'period_end_ms', to_ms(ends_at)
        ) AS detail
    FROM (
        SELECT
            accounts.platform_id,
            accounts.id AS account_id,
            min(grants.effective_at) AS begins_at,
            min(CASE
                WHEN grants.effective_at < accounts.period_start_at THEN accounts.period_start_at
                ELSE least(grants.expires_at, accounts.period_end_at)
            END) AS ends_at,
            sum(grants.settled_microcredits) AS settled,
            sum(grants.amount_microcredits) AS amount
        FROM accounts
        JOIN grants ON grants.account_id = accounts.id AND grants.source = 'plan'
        WHERE accounts.period_end_at IS NOT NULL
            AND grants.revoked_at IS NULL
            AND (
                grants.effective_at >= accounts.period_start_at
                AND grants.effective_at < accounts.period_end_at
                OR grants.effective_at < accounts.period_start_at
                AND grants.expires_at >= accounts.period_start_at
                AND grants.expires_at <= accounts.period_start_at + interval '1 day'
                AND accounts.period_start_at > now() - interval '1 day'
            )
        GROUP BY
            accounts.platform_id, accounts.id, grants.effective_at < accounts.period_start_at
        HAVING sum(grants.settled_microcredits) > 0
    ) AS used
    CROSS JOIN unnest(ARRAY[70, 90, 100]) AS percent
    WHERE settled * 100 >= amount * percent
) AS crossed
WHERE NOT EXISTS (
    SELECT FROM account_events AS told WHERE told.business_key = crossed.business_key
)
ORDER BY crossed.account_id, crossed.percent
ON CONFLICT (business_key) DO NOTHING
RETURNING
    id AS event_id, platform_id, account_id, kind, detail, to_ms(created_at) AS created_ms,
    coalesce(to_ms(delivered_at), 0) AS delivered_ms
