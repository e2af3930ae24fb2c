-- What the first who sent this key asked for, and what it was answered, if it was. How old the
-- claim is, by the clock that it was made by: nodes' own differ.
SELECT
    request_id,
    fingerprint,
    to_ms(clock_timestamp()) - to_ms(claimed_at) AS age_ms,
    status,
    answer
FROM api_requests
WHERE actor = $1 AND digest = $2
