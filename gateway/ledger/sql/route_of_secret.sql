-- Routes in service that send a secret to their agents, by name: it can't be deleted.
SELECT name
FROM routes
WHERE platform_id = $1
    AND active
    AND jsonb_path_exists(
        spec, '$.headers[*][1] ? (@ == $reference)', jsonb_build_object('reference', $2::text)
    )
ORDER BY name
