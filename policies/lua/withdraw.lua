-- needs: lib/gate.lua lib/clock.lua lib/lots.lua
--
-- Take credits from an account apart from settling a call: a lot is over or revoked, people correct
-- a balance, a call turns out to have cost more than its expired hold. Never more than is
-- available; what is held stays held. Once per change id, until the change is acknowledged.
--
-- KEYS  1 shard meta
--       2 account
--       3 shard holds
--       4 shard outbox (stream)
-- ARGV  1 epoch seen (0: none)
--       2 highest seq seen
--       3 change id (32 hex digits)
--       4 kind: expire, revoke, adjust; or late, which counts as settled
--       5 grant id ('': the lots that are valid now, in burn-down order; of overage only for late)
--       6 amount, microcredits, or 'all'
--       7 call id ('': none)
--       8 owner 'platform,account'
-- Result, always starting with {status, epoch, seq}:
--   OK         taken, remaining (microcredits), postings, outbox id ('' if nothing was there)
--   LOAD       the account is not here: read Postgres, then run `load`
--   STALE, REGRESSED, CLOSED   as in admit. Nobody takes from a closed shard, not even the process
--              that rebuilds it: loading the account might undo it in Redis, and not in Postgres
-- Outbox entry, one field c: change id|kind|owner|now_ms|call id|postings. In holds the change id
-- has the text 'c|outbox id' until the change is acknowledged.
--
-- Example: EVALSHA ... 4 tk:{s012}:meta tk:{s012}:a:7 tk:{s012}:holds tk:{s012}:outbox
--            3 42 0191...cd expire 12 all '' 1,7
--   -> {'OK', 3, 43, 250000, 0, '12:250000', '1790000000456-0'}
assert(#KEYS == 4 and #ARGV == 8, 'withdraw takes 4 KEYS and 8 ARGV')
local kinds = {expire = true, revoke = true, adjust = true, late = true}
local kind, lot_id = ARGV[4], ARGV[5]
assert(kinds[kind], 'no such kind of change')
assert(string.find(lot_id, '^%d*$'), 'a grant id is a number')
local missing = ARGV[6] == 'all' and 9007199254740991 or whole(ARGV[6])
local call, format = redis.call, string.format
local refusal, epoch, seq = gate(KEYS[1], ARGV[1], ARGV[2])
if refusal then return refusal end
local account = call('HMGET', KEYS[2], 'epoch', 'lots')
if tonumber(account[1]) ~= epoch then return {'LOAD', epoch, seq} end
local now_us = clock_us()
local now_ms = (now_us - now_us % 1000) / 1000
local lots, by_id = read_lots(KEYS[2], account[2], lot_id .. ':', now_ms)

local stored = call('HGET', KEYS[3], ARGV[3])
if stored then
  -- A change may go by its call's id: not before that call's own settlement is acknowledged.
  assert(string.sub(stored, 1, 2) == 'c|', 'a call of this id is on its way to Postgres')
  local outbox_id = string.sub(stored, 3)
  local entry = call('XRANGE', KEYS[4], outbox_id, outbox_id)[1]
  local postings = entry and string.match(entry[2][2], '|([^|]*)$') or ''
  local taken = 0
  for part in string.gmatch(postings, ':(%d+)') do taken = taken + tonumber(part) end
  return {'OK', epoch, seq, taken, remaining_of(lots), postings, outbox_id}
end

local field = kind == 'late' and 'settled' or 'withdrawn'
local prefix = kind == 'late' and 's:' or 'w:'
local taken, postings, writes = 0, {}, {}
for _, lot in ipairs(lot_id ~= '' and {by_id[lot_id]} or lots) do
  local part = math.min(lot.available, missing)
  local may = lot_id ~= '' or (lot.spendable and (not lot.overage or kind == 'late'))
  if may and part > 0 then
    missing, taken = missing - part, taken + part
    lot.available, lot[field] = lot.available - part, lot[field] + part
    postings[#postings + 1] = format('%s:%d', lot.token, part)
    local w = #writes
    writes[w + 1], writes[w + 2] = 'a:' .. lot.id, format('%d', lot.available)
    writes[w + 3], writes[w + 4] = prefix .. lot.id, format('%d', lot[field])
  end
end
if taken == 0 then return {'OK', epoch, seq, 0, remaining_of(lots), '', ''} end
local text = table.concat(postings, ' ')
call('HSET', KEYS[2], unpack(writes))
local outbox_id = call('XADD', KEYS[4], '*', 'c',
  format('%s|%s|%s|%d|%s|%s', ARGV[3], kind, ARGV[8], now_ms, ARGV[7], text))
call('HSET', KEYS[3], ARGV[3], 'c|' .. outbox_id)
return {'OK', epoch, next_seq(KEYS[1], seq), taken, remaining_of(lots), text, outbox_id}
