-- needs: lib/gate.lua lib/clock.lua lib/parked.lua
--
-- Keep a hold for a task that outlives its call: write down that the task has it, and extend its
-- lease.
--
-- KEYS  1 shard meta
--       2 account
--       3 shard holds
--       4 shard leases
--       5 record of the task
-- ARGV  1 call id
--       2 epoch seen (0: none)
--       3 highest seq seen
--       4 lease, ms from now
--       5 how long the record is kept, ms
--       6 record: begins with the call id and a space, the rest is never read here
--       7 '1' when the call itself has ended, so that it no longer counts as running; else '0'
-- Result, always starting with {status, epoch, seq}:
--   OK         the task has the hold; with '1' the text of the hold, too
--   TAKEN      the task has another hold, which is live: nothing happened
--   GONE       no such hold is live
--   STALE, REGRESSED, CLOSED   as in admit
-- Repeating it does no harm. The lease is never shortened. The hold counts as sent on. A hold that
-- no longer counts as running says P in its counted, and its credits stay held.
--
-- Example: EVALSHA ... 5 tk:{s012}:meta tk:{s012}:a:7 tk:{s012}:holds tk:{s012}:leases
--            tk:{s012}:t:7:5f0e
--            0190...ab 3 42 3600000 90000000 '0190...ab {...}' 1
--   -> {'OK', 3, 43, 'h|7|1790000000123|2500000|100000||P|12:2500000|1,7,5,2,9,'}
assert(#KEYS == 5 and #ARGV == 7, 'park takes 5 KEYS and 7 ARGV')
local lease_ms, kept_ms = whole(ARGV[4]), whole(ARGV[5])
assert(string.sub(ARGV[6], 1, #ARGV[1] + 1) == ARGV[1] .. ' ', 'the record is of another call')
local refusal, epoch, seq = gate(KEYS[1], ARGV[2], ARGV[3])
if refusal then return refusal end
local call = redis.call
local text = call('HGET', KEYS[3], ARGV[1])
if not text or string.sub(text, 1, 2) ~= 'h|' then return {'GONE', epoch, seq} end
local other = string.match(call('GET', KEYS[5]) or '', '^(%x+) ')
if other and other ~= ARGV[1] then
  local held = call('HGET', KEYS[3], other)
  if held and string.sub(held, 1, 2) == 'h|' then return {'TAKEN', epoch, seq} end
end
local now_us = clock_us()
local deadline_ms = (now_us - now_us % 1000) / 1000 + lease_ms
call('SET', KEYS[5], ARGV[6], 'PX', ARGV[5])
call('ZADD', KEYS[4], 'GT', string.format('%d', 2 * deadline_ms + 1), ARGV[1])
if ARGV[7] == '1' then text = leave_running(KEYS[2], KEYS[3], ARGV[1], text) end
seq = next_seq(KEYS[1], seq)
if ARGV[7] == '1' then return {'OK', epoch, seq, text} end
return {'OK', epoch, seq}
