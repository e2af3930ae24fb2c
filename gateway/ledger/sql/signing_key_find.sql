-- The key that signs now; under the lock of signing_key_lock.sql there is never a second.
SELECT kid, sealed_private
FROM signing_keys
WHERE retired_at IS NULL
ORDER BY created_at DESC, kid
LIMIT 1
