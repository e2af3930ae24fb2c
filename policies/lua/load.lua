-- needs: lib/gate.lua
--
-- Seed an account with what Postgres says of it: absolutely, never additively.
--
-- KEYS  1 shard meta   2 account
-- ARGV  1 epoch (as seen; 0: none)
--       2 seq of the shard, as replied BEFORE Postgres was read (the LOAD that asked for it): see LOAD below
--       3 force: '1' seeds an account again that is loaded already
--       4 … field, value pairs: status, rpm, rpmonth, conc, lots (grant ids in burn-down order, separated by spaces), and
--         for each of these grants a: available, s: settled, e: expires_ms, f: effective_ms; k:<key id> for each key.
--         tat, month, count may be given. epoch, running and h: are set here.
-- Result, always starting with {status, epoch, seq}:
--   OK
--   KEPT       the account is loaded; of what was given only keys that it did not know yet were added
--   LOAD       the account was amended or granted to after `seq`: what was read is too old, read it again
--   BUSY       force, but calls are running whose holds would be lost
--   STALE, REGRESSED   as in admit
--
-- Example: EVALSHA … 2 tk:{012}:meta tk:{012}:a:7 3 40 0 status active rpm 600 rpmonth 0 conc 50 lots 12
--            a:12 1000000000 s:12 0 e:12 0 f:12 1789000000000 k:5 0
--       →  {'OK', 3, 41}
assert(#KEYS == 2 and #ARGV >= 13 and #ARGV % 2 == 1, 'load takes 2 KEYS, 3 ARGV and five or more pairs')
assert(#ARGV <= 4096, 'an account has too many lots and keys to load') -- unpack() ends at about 8000
local given = {}
for i = 4, #ARGV, 2 do given[ARGV[i]] = ARGV[i + 1] end
assert(given.status and given.lots, 'load needs status and lots')
assert(whole(given.rpm) and whole(given.rpmonth) and whole(given.conc))
given.tat, given.month_end, given.count = '0', '0', '0'
for id in string.gmatch(given.lots, '%S+') do
  for _, kind in ipairs({'a:', 's:', 'e:', 'f:'}) do
    assert(given[kind .. id], 'load misses a field of a lot')
    whole(given[kind .. id])
  end
  given['h:' .. id] = '0'
end

local call = redis.call
local refusal, epoch, seq = gate(KEYS[1], ARGV[1], ARGV[2])
if refusal then return refusal end
local account = call('HMGET', KEYS[2], 'epoch', 'running', 'amended_epoch', 'amended_seq')
if tonumber(account[1]) == epoch then
  if ARGV[3] == '0' then
    local added = 0
    for field, value in pairs(given) do
      if string.sub(field, 1, 2) == 'k:' then added = added + call('HSETNX', KEYS[2], field, value) end
    end
    if added > 0 then
      seq = seq + 1
      call('HSET', KEYS[1], 'seq', seq)
    end
    return {'KEPT', epoch, seq}
  end
  if tonumber(account[2]) > 0 then return {'BUSY', epoch, seq} end
end
if tonumber(account[3]) == epoch and tonumber(account[4]) > whole(ARGV[2]) then
  return {'LOAD', epoch, seq}
end

-- The fields of every call come first: small hashes are searched from the front.
local pairs_ = {'epoch', epoch, 'running', 0}
for _, field in ipairs({'status', 'rpm', 'rpmonth', 'conc', 'lots', 'tat', 'month_end', 'count'}) do
  pairs_[#pairs_ + 1], pairs_[#pairs_ + 2] = field, given[field]
  given[field] = nil
end
given.epoch, given.running = nil, nil
for field, value in pairs(given) do pairs_[#pairs_ + 1], pairs_[#pairs_ + 2] = field, value end
call('DEL', KEYS[2])
call('HSET', KEYS[2], unpack(pairs_))
call('HSET', KEYS[1], 'seq', seq + 1)
return {'OK', epoch, seq + 1}
