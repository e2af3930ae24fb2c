-- From its commit on, whoever signs uses it.
INSERT INTO signing_keys (kid, public_jwk, sealed_private) VALUES ($1, $2, $3) RETURNING kid
