-- Which of these keys are closed, and the nearest above each that is not: its counter has taken
-- over what they used.
WITH RECURSIVE lineage AS (
    SELECT id AS key_id, id AS counts_as, parent_key_id, closed
    FROM api_keys WHERE id = ANY ($1::bigint[]) AND closed
    UNION ALL
    SELECT lineage.key_id, parent.id, parent.parent_key_id, parent.closed
    FROM lineage JOIN api_keys AS parent ON parent.id = lineage.parent_key_id
    WHERE lineage.closed
)
SELECT key_id, counts_as FROM lineage WHERE NOT closed
