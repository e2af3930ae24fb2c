-- A shard that lost its memory opens again under a number nobody has used, and counts anew.
INSERT INTO shards (shard, epoch) VALUES ($1, 1)
ON CONFLICT (shard) DO UPDATE SET epoch = shards.epoch + 1, seq = 0
RETURNING epoch
