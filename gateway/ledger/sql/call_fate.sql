-- How a call ended, if it did: settled, or about to be charged by a job.
SELECT ending, status, charged_microcredits::bigint AS charged_microcredits
FROM settlements
WHERE call_id = $1
UNION ALL
SELECT ending, status, owed_microcredits::bigint
FROM late_settlements
WHERE call_id = $1
LIMIT 1
