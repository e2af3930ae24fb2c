-- needs: lib/gate.lua
--
-- Open a closed shard: calls pass again, and each account that is not loaded is read from Postgres.
--
-- KEYS  1 shard meta
--       2 holds as they were found when it was closed
--       3 leases as they were found
--       4 reports of workers
-- ARGV  1 epoch under which it was closed
-- Result, always starting with {status, epoch, seq}:
--   OK         open, with seq 1
--   KEPT       it is not closed under this epoch: nothing happened
--
-- Example: EVALSHA ... 4 tk:{s012}:meta tk:{s012}:old tk:{s012}:oldleases tk:{s012}:reports 3
--   -> {'OK', 3, 1}
assert(#KEYS == 4 and #ARGV == 1, 'open takes 4 KEYS and 1 ARGV')
local wanted = whole(ARGV[1])
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
local epoch, seq = tonumber(meta[1]) or 0, tonumber(meta[2])
if epoch ~= wanted or seq then return {'KEPT', epoch, seq or 0} end
redis.call('HSET', KEYS[1], 'seq', '1')
redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4])
return {'OK', epoch, 1}
