-- What of an account's overage is to be billed now, lot by lot: all that a closed one had settled,
-- and of others, once, what they have when their period is over, which it is at $2 at the latest.
-- What calls were given back is not billed.
SELECT grant_id, plan_slug, nanos_per_credit, used AS to_microcredits,
    coalesce(billed, 0) AS from_microcredits, from_ms AS effective_ms, until_ms AS expires_ms
FROM (
    SELECT
        terms.grant_id,
        terms.plan_slug,
        terms.nanos_per_credit,
        greatest(grants.settled_microcredits - grants.credited_microcredits, 0)::bigint AS used,
        (
            SELECT max(overage_charges.to_microcredits) FROM overage_charges
            WHERE overage_charges.grant_id = terms.grant_id
        )::bigint AS billed,
        grants.closed,
        to_ms(grants.effective_at) AS from_ms,
        to_ms(grants.expires_at) AS until_ms
    FROM overage_terms AS terms
    JOIN grants ON grants.id = terms.grant_id
    WHERE terms.account_id = $1 AND NOT terms.is_billed
) AS used
WHERE used > coalesce(billed, 0) AND (closed OR billed IS NULL AND until_ms <= $2)
ORDER BY grant_id
