-- needs: lib/gate.lua lib/calendar.lua lib/facts.lua lib/fields.lua lib/shares.lua
--
-- Seed an account with what Postgres says of it: absolutely, never additively.
--
-- KEYS  1 shard meta
--       2 account
-- ARGV  1 epoch seen (0: none)
--       2 seq of the shard as replied BEFORE Postgres was read, such as that of the LOAD that asked
--       3 force: '1' seeds an account again that is loaded already, else '0'
--       4 ... field, value pairs:
--         status; rpm, rpmonth, conc (limits; 0: none); rules; lots (grant ids in burn-down order,
--         separated by spaces, overage with the suffix o); for each of these grants a: available,
--         s: settled, w: withdrawn (microcredits), e: expires_ms (0: never), f: effective_ms, and
--         perhaps h: held; k:<key id> for each key (0 active for ever, -1 revoked, else expires_ms;
--         perhaps a space and rules), and p:<key id> for delegated ones ('<parent>:<budget>', which
--         is counted in the parent's counter); perhaps running; perhaps month (yyyymm) and count,
--         its calls so far; counters '<scope>.<kind>', 'u:<route id>:<unit>'
-- Result, always starting with {status, epoch, seq}:
--   OK
--   KEPT       the account is loaded; of what is given only keys and counters are added that it
--              does not know, and no shares: which keys were carved it knows better. Nor caps in
--              total of keys that it knows: in those shares count, so `amend` tells of them
--   LOAD       the account was amended or credited after `seq`, so that what was read may be too
--              old: read Postgres again
--   BUSY       force, but calls are running whose holds would be lost
--   STALE, REGRESSED, CLOSED   as in admit; but a closed shard is filled by who names its epoch
-- A settlement that is in the outbox and not in Postgres yet is charged again when its account is
-- loaded anew: force it only when the outbox holds nothing of it.
--
-- Example: EVALSHA ... 2 tk:{s012}:meta tk:{s012}:a:7
--            3 40 0 status active rpm 600 rpmonth 0 conc 50 rules ''
--            lots 12 a:12 1000000000 s:12 0 w:12 0 e:12 0 f:12 1789000000000 k:5 0
--   -> {'OK', 3, 41}
assert(#KEYS == 2 and #ARGV >= 15 and #ARGV % 2 == 1,
  'load takes 2 KEYS, 3 ARGV and six or more pairs')
assert(#ARGV <= 65536, 'an account has too many lots and keys')
local seq_seen = whole(ARGV[2])
local given = {}
for i = 4, #ARGV, 2 do given[ARGV[i]] = ARGV[i + 1] end
for _, name in ipairs({'status', 'rpm', 'rpmonth', 'conc', 'rules'}) do
  check_fact(name, given[name])
end
local running = string.format('%d', whole(given.running or '0'))
local month, count = whole(given.month or '0'), whole(given.count or '0')
local month_end = month > 0 and month_begin_ms(math.floor(month / 100), month % 100 + 1) or 0

-- The fields of every call come first, because Redis searches small hashes from the front.
local fields = {
  'running', running, 'status', given.status, 'rpm', given.rpm, 'rpmonth', given.rpmonth,
  'conc', given.conc, 'lots', given.lots, 'tat', '0', 'month_end', string.format('%d', month_end),
  'count', string.format('%d', count), 'rules', given.rules,
}
local _, lots_count = string.gsub(given.lots, '%S+', '')
assert(lots_count <= 400, 'an account has too many lots') -- see credit.lua
for token in string.gmatch(given.lots, '%S+') do
  local id = string.match(token, '^(%d+)o?$')
  assert(id, 'lots must be grant ids')
  given['h:' .. id] = given['h:' .. id] or '0'
  for _, kind in ipairs({'a:', 'h:', 's:', 'w:', 'e:', 'f:'}) do
    whole(given[kind .. id])
    fields[#fields + 1], fields[#fields + 2] = kind .. id, given[kind .. id]
  end
end
local added_only, told = {}, {} -- keys and counters; shares
for field, value in pairs(given) do
  if string.find(field, '^k:%d+$') or is_counter(field) then
    check_fact(field, value)
    added_only[#added_only + 1], added_only[#added_only + 2] = field, value
  elseif is_share(field, value) then
    fields[#fields + 1], fields[#fields + 2] = field, value
    told[#told + 1], told[#told + 2] = field, value
  end
end

local call = redis.call
local refusal, epoch, seq, closed = gate(KEYS[1], ARGV[1], ARGV[2], true)
if refusal then return refusal end
local account = call('HMGET', KEYS[2], 'epoch', 'running', 'amended_epoch', 'amended_seq')
if tonumber(account[1]) == epoch then
  if ARGV[3] ~= '1' then
    local added, shares = 0, shares_of(told)
    local function add(field, value) added = added + call('HSETNX', KEYS[2], field, value) end
    for i = 1, #added_only, 2 do
      local field, before = added_only[i], added
      local key_id = string.match(field, '^k:(%d+)$')
      if not string.find(field, '^K%d+%.ct$') then add(field, added_only[i + 1]) end
      if key_id and added > before and given['K' .. key_id .. '.ct'] then
        add('K' .. key_id .. '.ct', begin_total(key_id, shares[key_id], nil, given))
      end
    end
    if added > 0 then seq = next_seq(KEYS[1], seq, closed) end
    return {'KEPT', epoch, seq}
  end
  if tonumber(account[2]) > 0 and not closed then return {'BUSY', epoch, seq} end
end
if tonumber(account[3]) == epoch and tonumber(account[4]) > seq_seen then
  return {'LOAD', epoch, seq}
end

for i = 1, #added_only do fields[#fields + 1] = added_only[i] end
-- The seq first: at maxmemory this write is refused, before anything is gone.
seq = next_seq(KEYS[1], seq, closed)
call('DEL', KEYS[2])
call('HSET', KEYS[2], 'epoch', string.format('%d', epoch))
write_fields(KEYS[2], fields)
return {'OK', epoch, seq}
