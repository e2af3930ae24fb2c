-- Lots of many accounts, spent ones included, to hold against Redis.
SELECT
    id AS grant_id,
    account_id,
    source,
    amount_microcredits,
    credited_microcredits,
    settled_microcredits,
    expired_microcredits,
    revoked_microcredits,
    to_ms(effective_at) AS effective_ms,
    coalesce(to_ms(expires_at), 0) AS expires_ms
FROM grants
WHERE account_id = ANY ($1::bigint[])
