-- Lots that can still pay, in burn-down order: priority, then soonest expiry, then oldest
-- (policies/burndown.py).
SELECT
    id AS grant_id,
    amount_microcredits - settled_microcredits - expired_microcredits - revoked_microcredits
        AS available_microcredits,
    settled_microcredits,
    coalesce(to_ms(expires_at), 0) AS expires_ms,
    to_ms(effective_at) AS effective_ms
FROM grants
WHERE account_id = $1
    AND amount_microcredits > settled_microcredits + expired_microcredits + revoked_microcredits
    AND (expires_at IS NULL OR expires_at > now())
ORDER BY priority, expires_at NULLS LAST, created_at, id
