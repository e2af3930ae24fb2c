-- A platform's issuers, oldest first; of no platform: everybody's, for workers. With $2 only the
-- one of that id.
SELECT
    issuers.id AS issuer_id,
    issuers.platform_id,
    platforms.slug AS platform_slug,
    issuers.issuer,
    issuers.jwks_url,
    issuers.account_claim,
    issuers.algorithms,
    to_ms(issuers.created_at) AS created_ms
FROM issuers
JOIN platforms ON platforms.id = issuers.platform_id
WHERE issuers.active
    AND ($1::bigint IS NULL OR issuers.platform_id = $1)
    AND ($2::bigint IS NULL OR issuers.id = $2)
ORDER BY issuers.id
