-- Every key of accounts that is not closed, parents before what was carved out of them: -1 revoked,
-- 0 active for ever, else its expiry; its limits and caps; the version of its guards; and the
-- parent and the budget of a delegated one. A budget of nothing would be no cap: such a key is
-- revoked.
SELECT
    account_id,
    id AS key_id,
    CASE
        WHEN status = 'revoked' OR budget_microcredits = 0 THEN -1
        ELSE coalesce(to_ms(expires_at), 0)
    END AS state,
    spec,
    guard_version,
    parent_key_id,
    greatest(budget_microcredits, 1) AS budget_microcredits,
    to_ms(created_at) AS created_ms
FROM api_keys
WHERE account_id = ANY ($1::bigint[]) AND NOT closed
ORDER BY id
