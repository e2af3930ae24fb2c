-- Names of a platform's routes, those out of service too.
SELECT id, name FROM routes WHERE platform_id = $1
