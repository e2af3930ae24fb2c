-- needs:
--
-- Go on with a shard after connecting to its server, or close it if the server is not the run (or
-- not the master) that the shard was used on: what it wrote last may be lost, and the seq alone
-- does not show it. A worker that had seen less goes on calling, and soon the seq is again as high
-- as what the others had seen.
--
-- KEYS  1 shard meta
-- ARGV  1 identity of the run of the server, as it says itself
-- Result, always starting with {status, epoch, seq}:
--   OK         it is empty, or is used on this run already
--   CLOSED     it was open on another run: closed now, under its old epoch, until it is rebuilt
--   STALE      it was being rebuilt on another run: who did that must not go on, so it is as empty
--
-- Example: EVALSHA ... 1 tk:{s012}:meta 5e1f...9a -> {'CLOSED', 3, 0}
assert(#KEYS == 1 and #ARGV == 1, 'resume takes 1 KEYS and 1 ARGV')
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'run')
local epoch, seq = tonumber(meta[1]) or 0, tonumber(meta[2])
if epoch == 0 or meta[3] == ARGV[1] then return {'OK', epoch, seq or 0} end
-- First what a full server does not refuse: then it takes the rest, too.
redis.call('HDEL', KEYS[1], seq and 'seq' or 'epoch')
redis.call('HSET', KEYS[1], 'run', ARGV[1])
if seq then return {'CLOSED', epoch, 0} end
return {'STALE', 0, 0}
