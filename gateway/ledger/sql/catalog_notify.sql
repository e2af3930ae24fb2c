-- Delivered at commit: workers read their snapshot again.
SELECT pg_notify('tollkeeper_catalog', $1)
