-- Lots of an account, the newest first, from a lot on.
SELECT
    id AS grant_id,
    account_id,
    source,
    amount_microcredits,
    settled_microcredits,
    expired_microcredits,
    revoked_microcredits,
    to_ms(effective_at) AS effective_ms,
    coalesce(to_ms(expires_at), 0) AS expires_ms,
    priority,
    note,
    to_ms(created_at) AS created_ms,
    credited_microcredits,
    coalesce(to_ms(revoked_at), 0) AS revoked_ms,
    rollovers
FROM grants
WHERE platform_id = $1 AND account_id = $2 AND id < $3
ORDER BY id DESC
LIMIT $4
