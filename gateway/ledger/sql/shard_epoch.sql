-- The newest number given to a shard; no row: it was never opened.
SELECT epoch FROM shards WHERE shard = $1
