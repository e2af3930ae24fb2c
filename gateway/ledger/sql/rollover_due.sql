-- Rests of plan lots that have expired in the last $2 ms, that the plan rolls over and nobody has
-- rolled over yet: what was recorded by somebody who then died, too.
SELECT
    replace(changes.id::text, '-', '') AS change_id,
    changes.platform_id,
    changes.account_id,
    to_ms(changes.created_at) AS at_ms,
    entries.grant_id,
    -entries.microcredits AS microcredits
FROM ledger_changes AS changes
JOIN ledger_entries AS entries ON entries.change_id = changes.id
JOIN grants ON grants.id = entries.grant_id AND grants.source IN ('plan', 'rollover')
JOIN accounts ON accounts.id = changes.account_id AND accounts.period_end_at IS NOT NULL
JOIN plans ON plans.id = accounts.plan_id
WHERE changes.kind = 'expire'
    AND changes.created_at > now() - $2 * interval '1 ms'
    AND plans.spec -> 'rollover_microcredits_max' IS NOT NULL
    AND plans.spec ->> 'rollover_microcredits_max' IS DISTINCT FROM '0'
    AND grants.rollovers < coalesce((plans.spec ->> 'rollover_periods')::integer, 1)
    AND NOT EXISTS (
        SELECT FROM grants AS rolled
        WHERE rolled.business_key = 'rollover:' || replace(changes.id::text, '-', '')
    )
ORDER BY changes.created_at
LIMIT $1
