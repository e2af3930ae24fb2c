-- needs: lib/gate.lua lib/clock.lua lib/lots.lua
--
-- Undo the hold of a call that was never sent on: everything back to its lots, no settlement.
--
-- KEYS  1 shard meta
--       2 account
--       3 shard holds
--       4 shard leases
-- ARGV  1 call id
--       2 epoch seen (0: none)
--       3 highest seq seen
-- Result, always starting with {status, epoch, seq}:
--   OK         remaining, microcredits
--   GONE       no such hold (a repeated void gets this too), or the account is gone
--   SETTLED    too late: the call has been settled
--   STALE, REGRESSED   as in admit
-- The rate and the monthly quota keep counting the call. Works at maxmemory.
--
-- Example: EVALSHA ... 4 tk:{s012}:meta tk:{s012}:a:7
--            tk:{s012}:holds tk:{s012}:leases 0190...ab 3 42
--   -> {'OK', 3, 43, 1000000000}
assert(#KEYS == 4 and #ARGV == 3, 'void takes 4 KEYS and 3 ARGV')
local refusal, epoch, seq = gate(KEYS[1], ARGV[2], ARGV[3])
if refusal then return refusal end
local call, format = redis.call, string.format
local text = call('HGET', KEYS[3], ARGV[1])
if not text then return {'GONE', epoch, seq} end
local account_id, allocation = string.match(text, '^h|(%d+)|%d+|%d+|%d+|([^|]*)|')
if not account_id then return {'SETTLED', epoch, seq} end
assert(account_id == string.match(KEYS[2], ':a:(.+)'), 'the hold is of another account')
local account = call('HMGET', KEYS[2], 'running', 'lots')
if not account[2] then return {'GONE', epoch, seq} end
local now_us = clock_us()
local now_ms = (now_us - now_us % 1000) / 1000
local lots, by_id = read_lots(KEYS[2], account[2], allocation, now_ms)

local writes = {'running', format('%d', math.max(account[1] - 1, 0))}
for id, part in string.gmatch(allocation, '(%d+):(%d+)') do
  local lot = by_id[id]
  if lot then
    part = math.min(tonumber(part), lot.held) -- see charge_lots
    lot.available, lot.held = lot.available + part, lot.held - part
    local w = #writes
    writes[w + 1], writes[w + 2] = 'a:' .. id, format('%d', lot.available)
    writes[w + 3], writes[w + 4] = 'h:' .. id, format('%d', lot.held)
  end
end
call('ZREM', KEYS[4], ARGV[1]) -- first: see settle_hold
call('HSET', KEYS[2], unpack(writes))
call('HDEL', KEYS[3], ARGV[1])
seq = seq + 1
call('HSET', KEYS[1], 'seq', format('%d', seq))
return {'OK', epoch, seq, remaining_of(lots)}
