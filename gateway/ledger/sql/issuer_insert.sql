-- Nothing when the platform has an active one of this name already.
INSERT INTO issuers (platform_id, issuer, jwks_url, account_claim, algorithms)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (platform_id, issuer) WHERE active DO NOTHING
RETURNING id
