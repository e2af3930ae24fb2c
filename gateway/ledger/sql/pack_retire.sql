-- Not sold any more. It stays known: a payment for it may still be under way.
UPDATE packs SET active = false
WHERE platform_id = $1 AND slug = $2 AND managed_by = $3 AND active
RETURNING id
