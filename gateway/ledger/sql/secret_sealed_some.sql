-- The sealed values of some secrets of one platform; not for the API.
SELECT name, sealed FROM secrets WHERE platform_id = $1 AND name = ANY ($2::text[])
