-- needs: lib/gate.lua
--
-- Close a shard whose data was lost, or that people want rebuilt: from now on no call is admitted,
-- settled or voided there, until `open`.
--
-- KEYS  1 shard meta
--       2 shard holds
--       3 shard leases
--       4 holds as they were found
--       5 leases as they were found
--       6 reports of workers
-- ARGV  1 new epoch (1 or more; from Postgres, never given out twice)
--       2 epoch that is to be closed, as a script replied it (0: the shard is empty)
-- Result, always starting with {status, epoch, seq}:
--   OK         closed under the new epoch. Holds and leases are put aside, with those of a rebuild
--              that was not finished; accounts of an older epoch count as not loaded. The outbox
--              stays: its settlements happened
--   KEPT       somebody else has closed or opened it since: what is live must not be put aside
--
-- Example: EVALSHA ... 6 tk:{s012}:meta tk:{s012}:holds tk:{s012}:leases tk:{s012}:old
--            tk:{s012}:oldleases tk:{s012}:reports 3 0   -> {'OK', 3, 0}
assert(#KEYS == 6 and #ARGV == 2, 'close takes 6 KEYS and 2 ARGV')
local new_epoch, lost_epoch = whole(ARGV[1]), whole(ARGV[2])
assert(new_epoch > lost_epoch, 'a new epoch is above the one that was lost')
local call = redis.call
local meta = call('HMGET', KEYS[1], 'epoch', 'seq')
local epoch = tonumber(meta[1]) or 0
if epoch ~= lost_epoch then return {'KEPT', epoch, tonumber(meta[2]) or 0} end
call('HSET', KEYS[1], 'epoch', string.format('%d', new_epoch))
call('HDEL', KEYS[1], 'seq')
local holds = call('HGETALL', KEYS[2])
for i = 1, #holds, 2 do
  if string.sub(holds[i + 1], 1, 2) == 'h|' then call('HSET', KEYS[4], holds[i], holds[i + 1]) end
end
call('ZUNIONSTORE', KEYS[5], 2, KEYS[5], KEYS[3], 'AGGREGATE', 'MAX')
call('UNLINK', KEYS[2], KEYS[3], KEYS[6])
return {'OK', new_epoch, 0}
