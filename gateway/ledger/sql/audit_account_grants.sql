-- Lots of many accounts, spent ones included, to hold against Redis.
SELECT
    id AS grant_id,
    account_id,
    amount_microcredits,
    settled_microcredits,
    expired_microcredits,
    revoked_microcredits,
    coalesce(to_ms(expires_at), 0) AS expires_ms
FROM grants
WHERE account_id = ANY ($1::bigint[])
