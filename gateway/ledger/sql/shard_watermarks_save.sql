-- Only upwards, and only within the epoch in force. Rows are locked in one order, because every
-- worker writes those of all shards that it touched.
WITH seen AS (
    SELECT * FROM unnest($1::integer[], $2::bigint[], $3::bigint[]) AS seen (shard, epoch, seq)
), higher AS MATERIALIZED (
    SELECT shards.shard, seen.seq
    FROM shards
    JOIN seen ON seen.shard = shards.shard AND seen.epoch = shards.epoch AND seen.seq > shards.seq
    ORDER BY shards.shard
    FOR NO KEY UPDATE OF shards
)
UPDATE shards SET seq = higher.seq
FROM higher
WHERE shards.shard = higher.shard
