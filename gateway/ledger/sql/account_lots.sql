-- Lots that have something left, in burn-down order: priority, then soonest expiry, then oldest
-- (policies/burndown.py), overage last. Those that have ended are among them, for what they have
-- left is withdrawn in Redis; and overage that is used up, for its balance is shown.
SELECT
    account_id,
    id AS grant_id,
    source = 'overage' AS is_overage,
    amount_microcredits + credited_microcredits
        - settled_microcredits - expired_microcredits - revoked_microcredits
        AS available_microcredits,
    settled_microcredits,
    expired_microcredits + revoked_microcredits AS withdrawn_microcredits,
    coalesce(to_ms(expires_at), 0) AS expires_ms,
    to_ms(effective_at) AS effective_ms
FROM grants
WHERE account_id = ANY ($1::bigint[])
    AND NOT closed
    AND (
        amount_microcredits + credited_microcredits
            > settled_microcredits + expired_microcredits + revoked_microcredits
        OR source = 'overage' AND expires_at > now()
    )
ORDER BY source = 'overage', priority, expires_at NULLS LAST, created_at, id
