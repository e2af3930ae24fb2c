-- What people and config call a platform.
SELECT slug FROM platforms WHERE id = $1
