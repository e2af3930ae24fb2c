-- A shard takes an epoch when it is opened for the first time, and one whenever it is rebuilt.
SELECT coalesce(sum(epoch - 1), 0)::bigint FROM shards
