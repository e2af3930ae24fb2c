-- All but the newest sign no more. Their private halves go, so that nobody ever can.
UPDATE signing_keys SET retired_at = now(), sealed_private = ''
WHERE retired_at IS NULL AND kid <> $1
RETURNING kid
