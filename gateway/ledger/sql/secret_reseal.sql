-- Under a newer master key, unless somebody set another value meanwhile.
UPDATE secrets SET sealed = $3 WHERE id = $1 AND sealed = $2 RETURNING id
