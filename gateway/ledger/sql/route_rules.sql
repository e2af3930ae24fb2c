-- Routes in service with a quota or caps of their own: an account's use of them is counted apart.
SELECT id AS route_id, platform_id, spec
FROM routes
WHERE active
    AND platform_id = ANY ($1::bigint[])
    AND (
        spec -> 'limits' ->> 'requests_per_month' <> '0'
        OR EXISTS (SELECT FROM jsonb_each_text(spec -> 'caps') WHERE value <> '0')
    )
