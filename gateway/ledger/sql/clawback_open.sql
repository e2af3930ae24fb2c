-- Steps that somebody left undone $1 ms ago or longer, the oldest first.
SELECT replace(id::text, '-', '') AS clawback_id
FROM clawbacks
WHERE NOT is_done AND created_at <= now() - $1 * interval '1 ms'
ORDER BY created_at
LIMIT $2
