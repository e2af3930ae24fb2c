-- Which credits an account was given that pay from some time of a month on, by where they came
-- from; and what was added to them since, was taken of them, and ended unused.
SELECT
    source,
    sum(amount_microcredits)::bigint AS microcredits,
    sum(credited_microcredits)::bigint AS credited_microcredits,
    sum(revoked_microcredits)::bigint AS revoked_microcredits,
    sum(expired_microcredits)::bigint AS expired_microcredits
FROM grants
WHERE platform_id = $1
    AND account_id = $2
    AND source <> 'overage'
    AND effective_at >= from_ms($3)
    AND effective_at < from_ms($4)
GROUP BY source
ORDER BY source
