-- needs: lib/gate.lua lib/facts.lua lib/amended.lua lib/fields.lua lib/shares.lua
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
--         begins with what Postgres says, but for the shares in it. Of those Redis knows better:
--         p:<key id> is told because Postgres has counted it, and not written
-- Result, always starting with {status, epoch, seq}:
--   OK
--   LOAD       the account is not loaded, so that its next call reads Postgres; a worker that has
--              read it already, but before this, is told to read it again
--   STALE, REGRESSED, CLOSED   as in admit
-- Run it after the change is committed in Postgres. Repeating it does no harm.
--
-- Example: EVALSHA ... 2 tk:{s012}:meta tk:{s012}:a:7 3 43 k:5 -1   -> {'OK', 3, 44}
assert(#KEYS == 2 and #ARGV >= 4 and #ARGV % 2 == 0, 'amend takes 2 KEYS, 2 ARGV and pairs')
assert(#ARGV <= 65536, 'too many changes at once')
local given, changes, counters, uncapped, told = {}, {}, {}, {}, {}
for i = 3, #ARGV, 2 do
  local field, value = ARGV[i], ARGV[i + 1]
  local place = changes
  if is_share(field, value) then
    place = told
  else
    check_fact(field, value)
    if is_counter(field) then place = counters end
  end
  given[field] = value
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
local totals = {}
for i = 1, #counters, 2 do
  local is_new = call('HSETNX', KEYS[2], counters[i], counters[i + 1]) == 1
  local key_id = string.match(counters[i], '^K(%d+)%.ct$')
  if is_new and key_id then totals[#totals + 1] = key_id end
end
if #totals > 0 then
  local in_postgres, here = shares_of(told), shares_of(call('HGETALL', KEYS[2]))
  for _, key_id in ipairs(totals) do
    if in_postgres[key_id] or here[key_id] then
      call('HSET', KEYS[2], 'K' .. key_id .. '.ct',
        begin_total(key_id, in_postgres[key_id], here[key_id], given))
    end
  end
end
return {'OK', epoch, seq}
