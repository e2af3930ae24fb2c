-- People name routes, calls their ids. Out of service or not: its calls stay.
SELECT id FROM routes WHERE platform_id = $1 AND name = $2
