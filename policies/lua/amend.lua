-- needs: lib/gate.lua lib/facts.lua lib/amended.lua lib/fields.lua
--
-- Change facts of an account that move no credits: its status, its limits, its keys.
--
-- KEYS  1 shard meta
--       2 account
-- ARGV  1 epoch seen (0: none)
--       2 highest seq seen
--       3 ... field, value pairs out of: status ('active', 'suspended'), rpm, rpmonth, conc, rules,
--         k:<key id> (0 active for ever, -1 revoked, else expires_ms; perhaps a space and rules),
--         counters '<scope>.<kind>' and 'u:<route id>:<unit>', which are set only where the account
--         has none. A key without a cap in total loses the counter of it: one that comes back later
--         begins with what Postgres says
-- Result, always starting with {status, epoch, seq}:
--   OK
--   LOAD       the account is not loaded, so that its next call reads Postgres; a worker that has
--              read it already, but before this, is told to read it again
--   STALE, REGRESSED, CLOSED   as in admit
-- Run it after the change is committed in Postgres. Repeating it does no harm.
--
-- Example: EVALSHA ... 2 tk:{s012}:meta tk:{s012}:a:7 3 43 k:5 -1   -> {'OK', 3, 44}
assert(#KEYS == 2 and #ARGV >= 4 and #ARGV % 2 == 0, 'amend takes 2 KEYS, 2 ARGV and pairs')
assert(#ARGV <= 16384, 'too many changes at once')
local changes, counters, uncapped = {}, {}, {}
for i = 3, #ARGV, 2 do
  local field, value = ARGV[i], ARGV[i + 1]
  check_fact(field, value)
  local place = is_counter(field) and counters or changes
  place[#place + 1], place[#place + 2] = field, value
  local key_id = string.match(field, '^k:(%d+)$')
  if key_id and not string.find(value, 'ct:', 1, true) then
    uncapped[#uncapped + 1] = 'K' .. key_id .. '.ct'
  end
end
local call = redis.call
local refusal, epoch, seq = gate(KEYS[1], ARGV[1], ARGV[2])
if refusal then return refusal end
seq = next_seq(KEYS[1], seq)
if tonumber(call('HGET', KEYS[2], 'epoch')) ~= epoch then
  note_amended(KEYS[2], epoch, seq)
  return {'LOAD', epoch, seq}
end
write_fields(KEYS[2], changes)
for _, field in ipairs(uncapped) do call('HDEL', KEYS[2], field) end
for i = 1, #counters, 2 do call('HSETNX', KEYS[2], counters[i], counters[i + 1]) end
return {'OK', epoch, seq}
