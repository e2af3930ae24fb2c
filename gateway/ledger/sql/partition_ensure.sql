-- Partitions for this month and those ahead, before a settlement needs them.
SELECT name FROM ensure_settlement_partitions($1) AS name
