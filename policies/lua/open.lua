-- needs: lib/gate.lua
--
-- Open a shard under a new epoch: at its first start, or after its data was lost.
--
-- KEYS  1 shard meta
--       2 shard holds
--       3 shard leases
-- ARGV  1 new epoch (1 or more; from Postgres, never given out twice)
--       2 epoch that was lost, as a script replied it (0: the shard is empty)
-- Result, always starting with {status, epoch, seq}:
--   OK         open under this epoch with seq 0. Holds and leases of the older epoch are gone, and
--              accounts of it count as not loaded. The outbox stays: its settlements happened
--   KEPT       somebody else has opened it since: what is live must not be wiped a second time.
--              With epoch 0 it is not open, but what was lost is not what the caller saw
--
-- Example: EVALSHA ... 3 tk:{s012}:meta tk:{s012}:holds tk:{s012}:leases 3 0   -> {'OK', 3, 0}
assert(#KEYS == 3 and #ARGV == 2, 'open takes 3 KEYS and 2 ARGV')
local new_epoch, lost_epoch = whole(ARGV[1]), whole(ARGV[2])
assert(new_epoch > lost_epoch, 'a new epoch is above the one that was lost')
local call = redis.call
local meta = call('HMGET', KEYS[1], 'epoch', 'seq')
local epoch, seq = tonumber(meta[1]), tonumber(meta[2])
if not epoch or not seq then epoch, seq = 0, 0 end
if epoch ~= lost_epoch then return {'KEPT', epoch, seq} end
call('HSET', KEYS[1], 'epoch', new_epoch, 'seq', 0)
call('UNLINK', KEYS[2], KEYS[3])
return {'OK', new_epoch, 0}
