-- needs: lib/gate.lua lib/calendar.lua
--
-- Seed an account with what Postgres says of it: absolutely, never additively.
--
-- KEYS  1 shard meta
--       2 account
-- ARGV  1 epoch seen (0: none)
--       2 seq of the shard as replied BEFORE Postgres was read, such as that of the LOAD that asked
--       3 force: '1' seeds an account again that is loaded already, else '0'
--       4 ... field, value pairs:
--         status; rpm, rpmonth, conc (limits; 0: none); lots (grant ids in burn-down order,
--         separated by spaces); for each of these grants a: available, s: settled (microcredits),
--         e: expires_ms (0: never), f: effective_ms; k:<key id> for each key (0 active for ever,
--         -1 revoked, else expires_ms); perhaps month (yyyymm) and count, its calls so far
-- Result, always starting with {status, epoch, seq}:
--   OK
--   KEPT       the account is loaded; of what is given only keys are added that it does not know
--   LOAD       the account was amended or granted to after `seq`, so that what was read may be too
--              old: read Postgres again
--   BUSY       force, but calls are running whose holds would be lost
--   STALE, REGRESSED   as in admit
-- A settlement that is in the outbox and not in Postgres yet is charged again when its account is
-- loaded anew: force it only when the outbox holds nothing of it.
--
-- Example: EVALSHA ... 2 tk:{s012}:meta tk:{s012}:a:7
--            3 40 0 status active rpm 600 rpmonth 0 conc 50
--            lots 12 a:12 1000000000 s:12 0 e:12 0 f:12 1789000000000 k:5 0
--   -> {'OK', 3, 41}
assert(#KEYS == 2 and #ARGV >= 13 and #ARGV % 2 == 1,
  'load takes 2 KEYS, 3 ARGV and five or more pairs')
assert(#ARGV <= 4096, 'an account has too many lots and keys') -- unpack() ends at about 8000
local seq_seen = whole(ARGV[2])
local given = {}
for i = 4, #ARGV, 2 do given[ARGV[i]] = ARGV[i + 1] end
assert(given.status == 'active' or given.status == 'suspended', 'no such status')
whole(given.rpm)
whole(given.rpmonth)
whole(given.conc)
local month, count = whole(given.month or '0'), whole(given.count or '0')
local month_end = month > 0 and month_begin_ms(math.floor(month / 100), month % 100 + 1) or 0

-- The fields of every call come first, because Redis searches small hashes from the front.
local fields = {
  'running', '0', 'status', given.status, 'rpm', given.rpm, 'rpmonth', given.rpmonth,
  'conc', given.conc, 'lots', given.lots, 'tat', '0', 'month_end', string.format('%d', month_end),
  'count', string.format('%d', count),
}
for id in string.gmatch(given.lots, '%S+') do
  assert(string.find(id, '^%d+$'), 'lots must be grant ids')
  for _, kind in ipairs({'a:', 's:', 'e:', 'f:'}) do
    whole(given[kind .. id])
    fields[#fields + 1], fields[#fields + 2] = kind .. id, given[kind .. id]
  end
  fields[#fields + 1], fields[#fields + 2] = 'h:' .. id, '0'
end
local keys = {}
for field, value in pairs(given) do
  if string.find(field, '^k:%d+$') then
    if value ~= '-1' then whole(value) end
    keys[#keys + 1], keys[#keys + 2] = field, value
  end
end

local call = redis.call
local refusal, epoch, seq = gate(KEYS[1], ARGV[1], ARGV[2])
if refusal then return refusal end
local account = call('HMGET', KEYS[2], 'epoch', 'running', 'amended_epoch', 'amended_seq')
if tonumber(account[1]) == epoch then
  if ARGV[3] ~= '1' then
    local added = 0
    for i = 1, #keys, 2 do added = added + call('HSETNX', KEYS[2], keys[i], keys[i + 1]) end
    if added > 0 then
      seq = seq + 1
      call('HSET', KEYS[1], 'seq', string.format('%d', seq))
    end
    return {'KEPT', epoch, seq}
  end
  if tonumber(account[2]) > 0 then return {'BUSY', epoch, seq} end
end
if tonumber(account[3]) == epoch and tonumber(account[4]) > seq_seen then
  return {'LOAD', epoch, seq}
end

for i = 1, #keys do fields[#fields + 1] = keys[i] end
seq = seq + 1
-- The seq first: at maxmemory this write is refused, before anything is gone.
call('HSET', KEYS[1], 'seq', string.format('%d', seq))
call('DEL', KEYS[2])
call('HSET', KEYS[2], 'epoch', string.format('%d', epoch), unpack(fields))
return {'OK', epoch, seq}
