-- needs: lib/gate.lua lib/clock.lua lib/lots.lua lib/rules.lua lib/holds.lua
--
-- End a hold whose lease is over: nobody knows how its call ended, so its stage decides. If it was
-- never sent on it is undone; else it costs what the hold says is due by now.
--
-- KEYS  as settle
-- ARGV  1 call id
--       2 epoch seen (0: none)
--       3 highest seq seen
-- Result, always starting with {status, epoch, seq}:
--   OK         as settle, with the result 'unknown,0,<units seen>,expired'
--   VOIDED     remaining, microcredits: it was never sent on, nothing is charged
--   EARLY      the lease still runs: nothing happened
--   STALE, REGRESSED, CLOSED, GONE   as settle
-- A call that was settled before, by whomever, gets OK and that settlement.
--
-- Example: EVALSHA ... 5 tk:{s012}:meta tk:{s012}:a:7 tk:{s012}:holds tk:{s012}:leases
--            tk:{s012}:outbox
--            0190...ab 3 42
--   -> {'OK', 3, 43, 100000, 0, 999900000, '12:100000', '1790000130999-0', 1790000130999,
--       1790000000123}
assert((#KEYS == 5 or #KEYS == 6) and #ARGV == 3, 'expire takes 5 or 6 KEYS and 3 ARGV')
local refusal, epoch, seq = gate(KEYS[1], ARGV[2], ARGV[3])
if refusal then return refusal end
local text = redis.call('HGET', KEYS[3], ARGV[1])
if not text then
  redis.call('ZREM', KEYS[4], ARGV[1]) -- a lease without a hold would be found again and again
  return {'GONE', epoch, seq}
end
local now_us = clock_us()
local now_ms = (now_us - now_us % 1000) / 1000
if string.sub(text, 1, 2) ~= 'h|' then
  local reply = settled_reply(text, epoch, seq, now_ms)
  if reply[1] == 'EXPIRED' then reply[1] = 'OK' end
  return reply
end
-- A lease is kept as 2 * its deadline + the stage: 1 once the call is sent on. A hold without a
-- lease, which nothing makes, would otherwise stay for ever.
local lease = tonumber(redis.call('ZSCORE', KEYS[4], ARGV[1]) or 1)
local dispatched = lease % 2
if (lease - dispatched) / 2 > now_ms then return {'EARLY', epoch, seq} end
if dispatched == 0 then
  local remaining = undo_hold(ARGV[1], text, KEYS[6], now_ms)
  if not remaining then return {'GONE', epoch, seq} end
  return {'VOIDED', epoch, next_seq(KEYS[1], seq), remaining}
end
local _, _, _, due, units = string.match(text, HOLD)
return end_hold(ARGV[1], text, tonumber(due), 'unknown,0,' .. units .. ',expired', 'x', epoch, seq,
  now_ms)
