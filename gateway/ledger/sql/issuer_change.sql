-- Its name stays: another one is another issuer.
UPDATE issuers SET jwks_url = $3, account_claim = $4, algorithms = $5
WHERE platform_id = $1 AND id = $2 AND active
RETURNING id
