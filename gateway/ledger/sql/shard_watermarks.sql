-- What somebody has seen of every shard: a Redis that is behind that has lost data.
SELECT shard, epoch, seq FROM shards
