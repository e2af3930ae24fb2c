-- What has been applied, so that only newer files run, in order.
SELECT version, name FROM migrations ORDER BY version
