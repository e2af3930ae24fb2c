-- Which credits an account was given that pay from some time of a month on, by where they came
-- from.
SELECT
    source,
    sum(amount_microcredits)::bigint AS microcredits
FROM grants
WHERE platform_id = $1
    AND account_id = $2
    AND source <> 'overage'
    AND effective_at >= from_ms($3)
    AND effective_at < from_ms($4)
GROUP BY source
ORDER BY source
