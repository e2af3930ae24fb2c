-- Whose tokens may be good: the key that signs, and those retired less than $1 ms ago.
SELECT kid, public_jwk
FROM signing_keys
WHERE retired_at IS NULL OR retired_at > now() - $1 * interval '1 ms'
ORDER BY created_at DESC, kid
