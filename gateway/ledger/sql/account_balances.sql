-- Sums of the lots per account for lists; a moment behind Redis, where calls are decided. Overage
-- was not given: what of it is used counts as owed.
SELECT
    accounts.id AS account_id,
    coalesce(sum(grants.amount_microcredits + grants.credited_microcredits)
        FILTER (WHERE grants.source <> 'overage'), 0)::bigint AS granted_microcredits,
    coalesce(sum(grants.settled_microcredits), 0)::bigint AS settled_microcredits,
    coalesce(sum(
        CASE WHEN grants.source = 'overage' THEN 0 ELSE grants.amount_microcredits END
        + grants.credited_microcredits - grants.settled_microcredits
        - grants.expired_microcredits - grants.revoked_microcredits
    ) FILTER (
        WHERE grants.effective_at <= now()
            AND (grants.expires_at IS NULL OR grants.expires_at > now())
    ), 0)::bigint AS left_microcredits
FROM accounts
LEFT JOIN grants ON grants.account_id = accounts.id
WHERE accounts.platform_id = $1
GROUP BY accounts.id
