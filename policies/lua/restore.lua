-- needs: lib/gate.lua lib/clock.lua
--
-- Put holds into a closed shard: a worker tells of its calls that are still running, the rebuilder
-- of those that nobody tells of. Accounts are loaded afterwards, less what their holds hold.
--
-- KEYS  1 shard meta
--       2 shard holds
--       3 shard leases
--       4 reports of workers
-- ARGV  1 epoch under which the shard is closed
--       2 worker id ('': the rebuilder)
--       3 lease, ms from now
--       4 ... for each call: id; text of its hold; stage (0 held, 1 dispatched)
-- Result, always starting with {status, epoch, seq}:
--   OK         with a worker id and no calls: the worker is now noted as having told all
--   KEPT       the shard is not closed under this epoch: nothing happened
-- Absolute, so that repeating it does no harm.
--
-- Example: EVALSHA ... 4 tk:{s012}:meta tk:{s012}:holds tk:{s012}:leases tk:{s012}:reports
--            4 17 30000 0190...ab 'h|7|1790000000123|2500000|100000|||12:2500000|1,7,5,2,9,' 1
--   -> {'OK', 4, 0}
assert(#KEYS == 4 and #ARGV >= 3 and #ARGV % 3 == 0, 'restore takes 4 KEYS, 3 ARGV and triples')
assert(#ARGV <= 3003, 'too many calls at once') -- unpack() ends at about 8000
local wanted, lease_ms = whole(ARGV[1]), whole(ARGV[3])
local call, holds, leases = redis.call, {}, {}
local now_us = clock_us()
local deadline_ms = (now_us - now_us % 1000) / 1000 + lease_ms
for i = 4, #ARGV, 3 do
  assert(string.find(ARGV[i + 1], '^h|%d+|%d+|%d+|%d+|[^|]*|[^|]*|[^|]*|'), 'this is no hold')
  assert(ARGV[i + 2] == '0' or ARGV[i + 2] == '1', 'no such stage')
  holds[#holds + 1], holds[#holds + 2] = ARGV[i], ARGV[i + 1]
  leases[#leases + 1] = string.format('%d', 2 * deadline_ms + ARGV[i + 2])
  leases[#leases + 1] = ARGV[i]
end
local meta = call('HMGET', KEYS[1], 'epoch', 'seq')
local epoch = tonumber(meta[1]) or 0
if epoch ~= wanted or meta[2] then return {'KEPT', epoch, tonumber(meta[2]) or 0} end
if #holds > 0 then
  call('HSET', KEYS[2], unpack(holds))
  call('ZADD', KEYS[3], unpack(leases))
elseif ARGV[2] ~= '' then
  call('HSET', KEYS[4], ARGV[2], ARGV[1])
end
return {'OK', epoch, 0}
