-- What an account used beyond its grants in billing periods that are in a month, if only in part,
-- and what it was charged for that, in the mode $5.
SELECT
    grants.id AS grant_id,
    to_ms(grants.effective_at) AS from_ms,
    coalesce(to_ms(grants.expires_at), 0) AS until_ms,
    grants.settled_microcredits - grants.credited_microcredits AS used_microcredits,
    charged.currency,
    coalesce(charged.amount_minor, 0) AS amount_minor
FROM grants
LEFT JOIN (
    SELECT grant_id, currency, sum(amount_minor)::bigint AS amount_minor
    FROM overage_charges
    WHERE platform_id = $1 AND account_id = $2 AND livemode = $5
    GROUP BY grant_id, currency
) AS charged ON charged.grant_id = grants.id
WHERE grants.platform_id = $1
    AND grants.account_id = $2
    AND grants.source = 'overage'
    AND grants.effective_at < from_ms($4)
    AND (grants.expires_at IS NULL OR grants.expires_at > from_ms($3))
    AND grants.settled_microcredits > grants.credited_microcredits
ORDER BY grants.id
