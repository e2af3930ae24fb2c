-- needs: lib/gate.lua lib/clock.lua lib/lots.lua lib/rules.lua lib/holds.lua
--
-- Charge a call that ended while Redis could not be asked, whether its hold is still here or was
-- lost; once per call id, as long as nobody runs it for a call whose settlement is in Postgres.
--
-- KEYS  as settle
-- ARGV  1 call id
--       2 epoch seen (0: none)
--       3 highest seq seen
--       4 owed, microcredits
--       5 result, as settle
--       6 context
--       7 held, microcredits: what the call had reserved, for the record
--       8 admitted_ms
-- Result, always starting with {status, epoch, seq}:
--   OK, EXPIRED   as settle
--   GONE       it is settled, and its outbox entry is being acknowledged at this moment
--   LOAD       the account is not here: read Postgres, then run `load`
--   STALE, REGRESSED, CLOSED   as in admit; but a closed shard answers who names its epoch, so that
--              a rebuild can charge before anybody else takes the credits
-- Without a hold everything comes from the lots that are valid now, as far as they go.
--
-- Example: EVALSHA ... 5 tk:{s012}:meta tk:{s012}:a:7 tk:{s012}:holds tk:{s012}:leases
--            tk:{s012}:outbox
--            0190...ab 3 42 1250000 'completed,200,token=1150,' 1,7,5,2,9, 2500000 1790000000123
--   -> {'OK', 3, 43, 1250000, 0, 998750000, '12:1250000', '1790000000456-0', 1790000000456,
--       1790000000123}
assert((#KEYS == 5 or #KEYS == 6) and #ARGV == 8, 'late takes 5 or 6 KEYS and 8 ARGV')
local owed, held, admitted_ms = whole(ARGV[4]), whole(ARGV[7]), whole(ARGV[8])
local refusal, epoch, seq, closed = gate(KEYS[1], ARGV[2], ARGV[3], true)
if refusal then return refusal end
local now_us = clock_us()
local now_ms = (now_us - now_us % 1000) / 1000
local text = redis.call('HGET', KEYS[3], ARGV[1])
if text and string.sub(text, 1, 2) ~= 'h|' then return settled_reply(text, epoch, seq, now_ms) end
if tonumber(redis.call('HGET', KEYS[2], 'epoch')) ~= epoch then return {'LOAD', epoch, seq} end
local absent = not text
if absent then
  text = string.format('h|%s|%d|%d|0||||%s', string.match(KEYS[2], ':a:(.+)'), admitted_ms, held,
    ARGV[6])
end
return end_hold(ARGV[1], text, owed, ARGV[5], 's', epoch, seq, now_ms, closed, absent)
