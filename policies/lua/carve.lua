-- needs: lib/gate.lua lib/clock.lua lib/facts.lua lib/lineage.lua
--
-- Carve a delegated key out of another one: its whole budget counts in the parent's cap in total
-- from now on, and only now may it make calls.
--
-- KEYS  1 shard meta
--       2 account
-- ARGV  1 epoch seen (0: none)
--       2 highest seq seen
--       3 parent key id
--       4 key id
--       5 budget, microcredits, above 0
--       6 the key as the account's hash has it, '<expires_ms> ct:<budget> up:<parent> ...'
-- Result, always starting with {status, epoch, seq}:
--   OK
--   CAP        available: what the parent's cap in total has left, less than the budget
--   DEPTH      the key would have more than four ancestors
--   KEY        the key, its parent or one above that is revoked or expired
--   SUSPENDED  the account is
--   LOAD       the account, or the parent, is not here: read Postgres, then run `load`
--   STALE, REGRESSED, CLOSED   as in admit
-- Run it after the key's row is committed in Postgres; where it answers anything but OK the row is
-- to be revoked. Repeating it does no harm. An account that is loaded between the row and this has
-- counted the budget already, and perhaps with it more than the cap: then CAP, too. A parent
-- without a cap in total has nothing to carve from. What `amend` and `load` say of a key that is
-- here already is newer than ARGV 6, and stays.
-- Fields: p:<key id> is '<parent>:<budget>'; see giveback.lua.
-- At maxmemory it fails before it has written anything.
--
-- Example: EVALSHA ... 2 tk:{s012}:meta tk:{s012}:a:7 3 45 5 19 2000000
--            '1790000600000 ct:2000000 up:5'
--   -> {'OK', 3, 46}
assert(#KEYS == 2 and #ARGV == 6, 'carve takes 2 KEYS and 6 ARGV')
local parent, key_id, budget, text = ARGV[3], ARGV[4], whole(ARGV[5]), ARGV[6]
assert(budget > 0, 'a delegated key has a budget')
check_fact('k:' .. parent, '0')
check_fact('k:' .. key_id, text)
assert(string.match(text, ' ct:(%d+)') == ARGV[5], "the key's cap in total is its budget")
assert(string.match(text, ' up:(%d+)') == parent, 'the key names its parent')
local call, format = redis.call, string.format
local refusal, epoch, seq = gate(KEYS[1], ARGV[1], ARGV[2])
if refusal then return refusal end
local account = call('HMGET', KEYS[2], 'epoch', 'status', 'k:' .. parent, 'k:' .. key_id,
  'p:' .. key_id, 'K' .. parent .. '.ct', 'K' .. key_id .. '.ct')
if tonumber(account[1]) ~= epoch or not account[3] then return {'LOAD', epoch, seq} end

local now_us = clock_us()
local now_ms = (now_us - now_us % 1000) / 1000
local parent_rules
for _, told in ipairs({account[3], account[4] or text}) do
  local expires_ms, rules = string.match(told, '^(-?%d+) ?(.*)$')
  expires_ms = tonumber(expires_ms)
  if expires_ms ~= 0 and expires_ms <= now_ms then return {'KEY', epoch, seq} end
  parent_rules = parent_rules or rules
end
local status, lineage = lineage_of(KEYS[2], parent, parent_rules, now_ms)
if status then return {status, epoch, seq} end
if #lineage == 8 then return {'DEPTH', epoch, seq} end
if account[2] ~= 'active' then return {'SUSPENDED', epoch, seq} end

local limit = tonumber(string.match(parent_rules, 'ct:(%d+)') or 0)
local used = tonumber(string.match(account[6] or '', '^0:(%d+)$') or 0)
local share = format('%s:%d', parent, budget)
local added = budget
if account[5] then
  if string.find(account[5], '^%d+:%d+:') then return {'KEY', epoch, seq} end
  assert(account[5] == share, 'the key was carved otherwise')
  added = 0
end
if limit > 0 and added > limit - used then
  return {'CAP', epoch, seq, math.max(limit - used, 0)}
end
if added == 0 then return {'OK', epoch, seq} end

local writes = {'p:' .. key_id, share}
local function write(field, value)
  writes[#writes + 1], writes[#writes + 2] = field, value
end
if not account[4] then write('k:' .. key_id, text) end
if not account[7] then write('K' .. key_id .. '.ct', '0:0') end
if limit > 0 or account[6] then write('K' .. parent .. '.ct', format('0:%d', used + budget)) end
call('HSET', KEYS[2], unpack(writes))
return {'OK', epoch, next_seq(KEYS[1], seq)}
