-- Which price version is in force; NULL for a free route.
UPDATE routes SET price_version_id = $2 WHERE id = $1
