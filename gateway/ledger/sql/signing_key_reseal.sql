-- Under a newer master key, unless it was rotated meanwhile.
UPDATE signing_keys SET sealed_private = $3 WHERE kid = $1 AND sealed_private = $2 RETURNING kid
