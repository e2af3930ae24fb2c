-- needs: lib/gate.lua lib/clock.lua lib/lots.lua lib/holds.lua
--
-- End a hold with what its call really cost: charge it, give the rest back, write the outbox entry;
-- once per call id.
--
-- KEYS  1 shard meta
--       2 account
--       3 shard holds
--       4 shard leases
--       5 shard outbox (stream)
-- ARGV  1 call id
--       2 epoch seen (0: none)
--       3 highest seq seen
--       4 owed, microcredits
--       5 result 'ending,status,units,flags': kept in the outbox, never read here
-- Result, always starting with {status, epoch, seq}:
--   OK         charged, uncollected, remaining (microcredits), postings ('gid:amt gid:amt', only
--              charges above 0), outbox id, now_ms (of the settlement), admitted_ms
--   GONE       no such hold: acknowledged, voided, of an older epoch; or the account is gone
--   STALE, REGRESSED   as in admit
-- What is owed beyond the hold comes from the lots that are valid now, as far as they go; the rest
-- is uncollected. A call that was settled before, by whomever, gets that settlement again whatever
-- is said now. Works at maxmemory.
-- Outbox entry: i call id, x context, m held, t admitted_ms, n now_ms, c charged, u uncollected,
-- p postings, r result. The text in holds becomes 's|charged|uncollected|remaining|postings|outbox
-- id|now_ms|admitted_ms' until the settlement is acknowledged.
--
-- Example: EVALSHA ... 5 tk:{s012}:meta tk:{s012}:a:7 tk:{s012}:holds tk:{s012}:leases
--            tk:{s012}:outbox
--            0190...ab 3 42 1250000 'completed,200,token=1150,'
--   -> {'OK', 3, 43, 1250000, 0, 998750000, '12:1250000', '1790000000456-0', 1790000000456,
--       1790000000123}
assert(#KEYS == 5 and #ARGV == 5, 'settle takes 5 KEYS and 5 ARGV')
local owed = whole(ARGV[4])
local refusal, epoch, seq = gate(KEYS[1], ARGV[2], ARGV[3])
if refusal then return refusal end
local text = redis.call('HGET', KEYS[3], ARGV[1])
if not text then return {'GONE', epoch, seq} end
if string.sub(text, 1, 2) == 's|' then return settled_reply(text, epoch, seq) end
local now_us = clock_us()
return settle_hold(ARGV[1], text, owed, ARGV[5], epoch, seq, (now_us - now_us % 1000) / 1000)
