-- Those of these lots that are an account's, by id.
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
WHERE account_id = $1 AND id = ANY ($2::bigint[])
ORDER BY id
