-- New lots in the order in which they were made, of the last $3 ms: whose are they, and have they
-- been there for so long ($4 ms) that none with a smaller id can come any more? Those with nothing
-- left may be missing in Redis, for an account is loaded without them.
SELECT id AS grant_id, account_id, created_at <= now() - $4 * interval '1 ms' AS is_settled
FROM grants
WHERE id > $1
    AND created_at > now() - $3 * interval '1 ms'
    AND amount_microcredits + credited_microcredits
        > settled_microcredits + expired_microcredits + revoked_microcredits
ORDER BY id
LIMIT $2
