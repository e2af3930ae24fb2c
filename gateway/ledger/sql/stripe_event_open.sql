-- How many events of the deployment wait, and how many wait for a person.
SELECT
    count(*) FILTER (WHERE status = 'waiting') AS waiting,
    count(*) FILTER (WHERE status = 'parked') AS parked
FROM stripe_events
WHERE status IN ('waiting', 'parked')
