-- One lot by its id; no row if it is another platform's.
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
WHERE platform_id = $1 AND id = $2
