-- Sums of the lots per account for lists; a moment behind Redis, where calls are decided.
SELECT
    accounts.id AS account_id,
    coalesce(sum(grants.amount_microcredits), 0)::bigint AS granted_microcredits,
    coalesce(sum(grants.settled_microcredits), 0)::bigint AS settled_microcredits,
    coalesce(sum(
        grants.amount_microcredits - grants.settled_microcredits
        - grants.expired_microcredits - grants.revoked_microcredits
    ) FILTER (
        WHERE grants.effective_at <= now()
            AND (grants.expires_at IS NULL OR grants.expires_at > now())
    ), 0)::bigint AS left_microcredits
FROM accounts
LEFT JOIN grants ON grants.account_id = accounts.id
WHERE accounts.platform_id = $1
GROUP BY accounts.id
