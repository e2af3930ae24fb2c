-- needs: lib/gate.lua lib/clock.lua lib/lots.lua lib/rules.lua lib/holds.lua
--
-- Undo the hold of a call that was never sent on: everything back to its lots, no settlement.
--
-- KEYS  1 shard meta
--       2 account
--       3 shard holds
--       4 shard leases
--       5 session, if the call has one
-- ARGV  1 call id
--       2 epoch seen (0: none)
--       3 highest seq seen
-- Result, always starting with {status, epoch, seq}:
--   OK         remaining, microcredits
--   GONE       no such hold (a repeated void gets this too), or the account is gone
--   SETTLED    too late: the call has been settled
--   STALE, REGRESSED, CLOSED   as in admit
-- Rates and quotas keep counting the call; caps and concurrency do not. Works at maxmemory.
--
-- Example: EVALSHA ... 4 tk:{s012}:meta tk:{s012}:a:7
--            tk:{s012}:holds tk:{s012}:leases 0190...ab 3 42
--   -> {'OK', 3, 43, 1000000000}
assert((#KEYS == 4 or #KEYS == 5) and #ARGV == 3, 'void takes 4 or 5 KEYS and 3 ARGV')
local refusal, epoch, seq = gate(KEYS[1], ARGV[2], ARGV[3])
if refusal then return refusal end
local text = redis.call('HGET', KEYS[3], ARGV[1])
if not text then return {'GONE', epoch, seq} end
if string.sub(text, 1, 2) ~= 'h|' then return {'SETTLED', epoch, seq} end
local now_us = clock_us()
local remaining = undo_hold(ARGV[1], text, KEYS[5], (now_us - now_us % 1000) / 1000)
if not remaining then return {'GONE', epoch, seq} end
return {'OK', epoch, next_seq(KEYS[1], seq), remaining}
