-- Made when an issuer first names the account, by whichever worker is first. No secret has this
-- digest: it only has to be nobody else's. Who removes the issuer meanwhile waits, to revoke it.
INSERT INTO api_keys (
    platform_id, account_id, name, prefix, last4, pepper_version, digest, kind, issuer_id
)
SELECT accounts.platform_id, accounts.id, left(issuers.issuer, $4), 'jwt', '', 0, $5, 'issuer', $2
FROM accounts
JOIN issuers ON issuers.platform_id = accounts.platform_id AND issuers.id = $2
WHERE accounts.platform_id = $1 AND accounts.name = $3 AND issuers.active
FOR SHARE OF issuers
ON CONFLICT (account_id, issuer_id) WHERE issuer_id IS NOT NULL DO NOTHING
