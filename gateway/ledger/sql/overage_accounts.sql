-- Accounts with overage that is to be billed, or may be put on a draft of an invoice: a period's
-- that is over, or will be in $1 ms at most, and of which nothing was billed; or what a lot that is
-- closed had settled since. And those with a part that was begun $2 ms ago and not done. From an
-- account on, at most $4; expires_ms is that of the lot which ends first. Who never had a
-- subscription can't be billed.
WITH used AS (
    SELECT
        terms.platform_id,
        terms.account_id,
        to_ms(grants.expires_at) AS expires_ms,
        grants.closed,
        greatest(grants.settled_microcredits - grants.credited_microcredits, 0) AS used,
        (
            SELECT max(overage_charges.to_microcredits) FROM overage_charges
            WHERE overage_charges.grant_id = terms.grant_id
        ) AS billed
    FROM overage_terms AS terms
    JOIN grants ON grants.id = terms.grant_id
    WHERE NOT terms.is_billed
        AND EXISTS (SELECT FROM subscriptions WHERE subscriptions.account_id = terms.account_id)
), found AS (
    SELECT platform_id, account_id, expires_ms
    FROM used
    WHERE used > coalesce(billed, 0)
        AND (closed OR billed IS NULL AND expires_ms <= to_ms(now()) + $1)
    UNION ALL
    SELECT platform_id, account_id, 0
    FROM overage_charges
    WHERE billed_at IS NULL AND created_at <= now() - $2 * interval '1 ms'
)
SELECT platform_id, account_id, min(expires_ms)::bigint AS expires_ms, to_ms(now()) AS now_ms
FROM found
WHERE account_id > $3
GROUP BY platform_id, account_id
ORDER BY account_id
LIMIT $4
