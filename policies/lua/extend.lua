-- needs: lib/gate.lua lib/clock.lua lib/lots.lua lib/rules.lua lib/holds.lua
--
-- Renew the leases of calls that are still running, with what each would cost if nothing more were
-- heard of it.
--
-- KEYS  1 shard meta
--       2 shard holds
--       3 shard leases
-- ARGV  1 epoch seen (0: none)
--       2 highest seq seen
--       3 lease, ms from now
--       4 ... for each call: id; stage (0 held, 1 dispatched); due, microcredits ('': as it was);
--         units seen, as in a settlement's units
-- Result, always starting with {status, epoch, seq}:
--   OK         the ids of calls that have no hold (any more). Where more is due than is held, what
--              is held is kept as due
--   STALE, REGRESSED, CLOSED   as in admit
-- Repeating it does no harm. A stage never goes back. Works at maxmemory.
--
-- Example: EVALSHA ... 3 tk:{s012}:meta tk:{s012}:holds tk:{s012}:leases
--            3 42 30000 0190...ab 1 350000 token=250
--   -> {'OK', 3, 43}
assert(#KEYS == 3 and #ARGV >= 7 and #ARGV % 4 == 3, 'extend takes 3 KEYS, 3 ARGV and quadruples')
assert(#ARGV <= 4003, 'too many calls at once') -- unpack() ends at about 8000
local lease_ms, ids = whole(ARGV[3]), {}
for i = 4, #ARGV, 4 do
  assert(ARGV[i + 1] == '0' or ARGV[i + 1] == '1', 'no such stage')
  if ARGV[i + 2] ~= '' then whole(ARGV[i + 2]) end
  assert(not string.find(ARGV[i + 3], '[|]'), 'units hold no bar')
  ids[#ids + 1] = ARGV[i]
end
local refusal, epoch, seq = gate(KEYS[1], ARGV[1], ARGV[2])
if refusal then return refusal end
local call, format = redis.call, string.format
local texts, leases, holds, missing = call('HMGET', KEYS[2], unpack(ids)), {}, {}, {}
local scores = call('ZMSCORE', KEYS[3], unpack(ids))
local now_us = clock_us()
local deadline_ms = (now_us - now_us % 1000) / 1000 + lease_ms
for n, id in ipairs(ids) do
  local i, text = 4 * n, texts[n]
  if text and string.sub(text, 1, 2) == 'h|' then
    local stage = math.max(ARGV[i + 1], (scores[n] or 0) % 2)
    leases[#leases + 1] = format('%d', 2 * deadline_ms + stage)
    leases[#leases + 1] = id
    if ARGV[i + 2] ~= '' then
      local account_id, admitted_ms, held, due, _, counted, allocation, context =
        string.match(text, HOLD)
      -- Its worker may know of a raise that was lost with the shard: the others must be renewed.
      due = math.min(ARGV[i + 2], held)
      holds[#holds + 1] = id
      holds[#holds + 1] = format('h|%s|%s|%s|%d|%s|%s|%s|%s', account_id, admitted_ms, held,
        due, ARGV[i + 3], counted, allocation, context)
    end
  else
    missing[#missing + 1] = id
  end
end
if #leases > 0 then
  call('ZREM', KEYS[3], '') -- of nothing, and first: see end_hold; maxmemory must not end calls
  if #holds > 0 then call('HSET', KEYS[2], unpack(holds)) end
  -- The greater score: a mark that is still under way must not take a lease back. A hold that has
  -- lost its lease, which nothing should do, gets one again.
  call('ZADD', KEYS[3], 'GT', unpack(leases))
  seq = next_seq(KEYS[1], seq)
end
return {'OK', epoch, seq, unpack(missing)}
