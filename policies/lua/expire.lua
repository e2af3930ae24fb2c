-- needs: lib/gate.lua lib/clock.lua lib/lots.lua lib/holds.lua
--
-- End a hold whose lease is over: nobody knows how its call ended, so it costs its floor.
--
-- KEYS  as settle
-- ARGV  1 call id
--       2 epoch seen (0: none)
--       3 highest seq seen
-- Result, always starting with {status, epoch, seq}:
--   OK         as settle, with the result 'unknown,0,,'
--   EARLY      the lease still runs: nothing happened
--   STALE, REGRESSED, GONE   as settle
-- A call that was settled before gets that settlement again. Works at maxmemory.
--
-- Example: EVALSHA ... 5 tk:{s012}:meta tk:{s012}:a:7 tk:{s012}:holds tk:{s012}:leases
--            tk:{s012}:outbox
--            0190...ab 3 42
--   -> {'OK', 3, 43, 100000, 0, 999900000, '12:100000', '1790000130999-0', 1790000130999,
--       1790000000123}
assert(#KEYS == 5 and #ARGV == 3, 'expire takes 5 KEYS and 3 ARGV')
local refusal, epoch, seq = gate(KEYS[1], ARGV[2], ARGV[3])
if refusal then return refusal end
local text = redis.call('HGET', KEYS[3], ARGV[1])
if not text then return {'GONE', epoch, seq} end
if string.sub(text, 1, 2) == 's|' then return settled_reply(text, epoch, seq) end
local now_us = clock_us()
local now_ms = (now_us - now_us % 1000) / 1000
-- A hold without a lease, which nothing makes, would otherwise stay for ever.
local deadline_ms = tonumber(redis.call('ZSCORE', KEYS[4], ARGV[1]) or 0)
if deadline_ms > now_ms then return {'EARLY', epoch, seq} end
local floor = tonumber(string.match(text, '^h|%d+|%d+|%d+|(%d+)|'))
return settle_hold(ARGV[1], text, floor, 'unknown,0,,', epoch, seq, now_ms)
