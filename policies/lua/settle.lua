-- needs: lib/gate.lua lib/clock.lua
--
-- End a hold with what its call really cost: charge it, give the rest back, write the outbox entry;
-- once per call id.
--
-- KEYS  1 shard meta
--       2 account
--       3 shard holds
--       4 shard leases
--       5 shard outbox (stream)
--       6 session, if the call has one
-- ARGV  1 call id
--       2 epoch seen (0: none)
--       3 highest seq seen
--       4 owed, microcredits
--       5 result 'ending,status,units,flags': kept in the outbox, never read here
--       6 steps of an account through graduated tiers, if there are any, separated by spaces:
--         '<route id>:<unit>:<least>:<most>:<units>'. What is owed is right if the account has used
--         least .. most of the unit on the route in this billing period (without one: this month)
-- Result, always starting with {status, epoch, seq}:
--   OK         charged, uncollected, remaining (microcredits), postings ('gid:amt gid:amt', only
--              charges above 0), outbox id, now_ms (of the settlement), admitted_ms
--   EXPIRED    the same of the settlement that `expire` made, because it was faster
--   MOVED      one position per step: what the account has used before. It is not within a step,
--              so that nothing happened: compute what is owed again
--   GONE       no such hold: acknowledged, voided, of an older epoch; or the account is gone
--   STALE, REGRESSED, CLOSED   as in admit
-- What is owed beyond the hold comes from the lots that are valid now, as far as they go; the rest
-- is uncollected. A call that was settled before gets that settlement again whatever is said now
-- (remaining is what it is by now). Steps move the account on when they settle the call, once, and
-- only here: calls that expire or are charged late leave it where it is. Works at maxmemory.
-- Outbox entry, one field v: call id|context|held|admitted_ms|now_ms|charged|uncollected|postings|
-- result. The text in holds becomes 's|outbox id' until the settlement is acknowledged.
--
-- Example: EVALSHA ... 5 tk:{s012}:meta tk:{s012}:a:7 tk:{s012}:holds tk:{s012}:leases
--            tk:{s012}:outbox
--            0190...ab 3 42 1250000 'completed,200,token=1150,'
--   -> {'OK', 3, 43, 1250000, 0, 998750000, '12:1250000', '1790000000456-0', 1790000000456,
--       1790000000123}
assert((#KEYS == 5 or #KEYS == 6) and (#ARGV == 5 or #ARGV == 6),
  'settle takes 5 or 6 KEYS and 5 or 6 ARGV')
local owed = whole(ARGV[4])
local refusal, epoch, seq = gate(KEYS[1], ARGV[2], ARGV[3])
if refusal then return refusal end
local call, format = redis.call, string.format
local text = call('HGET', KEYS[3], ARGV[1])
if not text then return {'GONE', epoch, seq} end
local now_us = clock_us()
local now_ms = (now_us - now_us % 1000) / 1000

local moved_on
if (ARGV[6] or '') ~= '' and string.sub(text, 1, 2) == 'h|' then
-- needs: lib/calendar.lua lib/steps.lua
  refusal, moved_on = take_steps(KEYS[2], ARGV[6], now_ms, epoch, seq)
  if refusal then return refusal end
end

-- The common case, at half the work of lib/holds.lua: one lot holds it all, it is the account's
-- only one, and no cap counts the call.
local account_id, admitted_ms, held, id, part, context =
  string.match(text, '^h|(%d+)|(%d+)|(%d+)|%d+|[^|]*||(%d+):(%d+)|(.*)$')
if id then
  assert(account_id == string.match(KEYS[2], ':a:(.+)'), 'the hold is of another account')
  local available_field, held_field, settled_field = 'a:' .. id, 'h:' .. id, 's:' .. id
  local account = call('HMGET', KEYS[2], 'running', 'lots', available_field, held_field,
    settled_field, 'e:' .. id, 'f:' .. id)
  part = tonumber(part)
  if account[2] == id and owed <= part and part <= tonumber(account[4]) then
    local available, expires_ms = account[3] + part - owed, tonumber(account[6])
    local spendable = tonumber(account[7]) <= now_ms and (expires_ms == 0 or now_ms < expires_ms)
    local remaining = spendable and available or 0
    local charged, now = format('%d', owed), format('%d', now_ms)
    local postings = owed > 0 and id .. ':' .. charged or ''
    call('ZREM', KEYS[4], ARGV[1]) -- first: see end_hold
    call('HSET', KEYS[2], 'running', format('%d', math.max(account[1] - 1, 0)),
      available_field, format('%d', available), held_field, format('%d', account[4] - part),
      settled_field, format('%d', account[5] + owed))
    local outbox_id = call('XADD', KEYS[5], '*', 'v', ARGV[1] .. '|' .. context .. '|' .. held
      .. '|' .. admitted_ms .. '|' .. now .. '|' .. charged .. '|0|' .. postings .. '|' .. ARGV[5])
    call('HSET', KEYS[3], ARGV[1], 's|' .. outbox_id)
    if moved_on then call('HSET', KEYS[2], unpack(moved_on)) end
    return {'OK', epoch, next_seq(KEYS[1], seq), owed, 0, remaining, postings, outbox_id, now_ms,
      tonumber(admitted_ms)}
  end
end

-- needs: lib/lots.lua lib/rules.lua lib/holds.lua
if string.sub(text, 1, 2) ~= 'h|' then return settled_reply(text, epoch, seq, now_ms) end
local reply = end_hold(ARGV[1], text, owed, ARGV[5], 's', epoch, seq, now_ms)
if moved_on and reply[1] == 'OK' then call('HSET', KEYS[2], unpack(moved_on)) end
return reply
