-- needs: lib/gate.lua lib/amended.lua
--
-- Tell a loaded account what Postgres says of one lot: a new one, or one that was added to, or
-- whose times have changed. Totals are absolute and only ever grow, so that telling twice, or late,
-- does no harm; what was taken from a lot is Redis' own knowledge and never told.
--
-- KEYS  1 shard meta
--       2 account
-- ARGV  1 epoch seen (0: none)
--       2 highest seq seen
--       3 grant id
--       4 total: all that was ever given to the lot, microcredits
--       5 settled, by Postgres' account     } only for a lot that is not here
--       6 withdrawn, by Postgres' account   }
--       7 expires_ms (0: never)
--       8 effective_ms
--       9 the account's lots in burn-down order, this one among them, overage with the suffix o
-- Result, always starting with {status, epoch, seq}:
--   OK
--   KEPT       the account knows all of it
--   LOAD       the account is not loaded; as in amend
--   STALE, REGRESSED, CLOSED   as in admit
-- Run it after the change is committed in Postgres. Lots may be told in another order than they
-- were made: ids that the account does not know are left out of its order (their own telling brings
-- them), and those that the order does not know stay, before overage, while they have something
-- available or held. One that is spent leaves the account's order, which stays short so; what is
-- known of it stays, should something come back to it.
--
-- Example: EVALSHA ... 2 tk:{s012}:meta tk:{s012}:a:7 3 44 15 500000000 0 0 1795000000000
--            1790000000000 '15 12'
--   -> {'OK', 3, 45}
assert(#KEYS == 2 and #ARGV == 9, 'credit takes 2 KEYS and 9 ARGV')
local id = ARGV[3]
assert(string.find(id, '^%d+$'), 'a grant id is a number')
local total, settled, withdrawn = whole(ARGV[4]), whole(ARGV[5]), whole(ARGV[6])
assert(settled + withdrawn <= total, 'more was taken from the lot than it had')
whole(ARGV[7])
whole(ARGV[8])
local call, format = redis.call, string.format
local refusal, epoch, seq = gate(KEYS[1], ARGV[1], ARGV[2])
if refusal then return refusal end
local account = call('HMGET', KEYS[2], 'epoch', 'lots', 'a:' .. id, 'h:' .. id, 's:' .. id,
  'w:' .. id, 'e:' .. id, 'f:' .. id)
if tonumber(account[1]) ~= epoch then
  seq = next_seq(KEYS[1], seq)
  note_amended(KEYS[2], epoch, seq)
  return {'LOAD', epoch, seq}
end

local known, order, ordered, overage = {[id] = true}, {}, {}, {}
for lot in string.gmatch(account[2], '%d+') do known[lot] = true end
local told, rest, fields = {}, {}, {}
for lot in string.gmatch(ARGV[9], '%d+') do told[lot] = true end
for lot in pairs(known) do
  if not told[lot] and lot ~= id then
    rest[#rest + 1] = lot
    fields[#fields + 1], fields[#fields + 2] = 'a:' .. lot, 'h:' .. lot
  end
end
local left = #rest > 0 and call('HMGET', KEYS[2], unpack(fields))
for i, lot in ipairs(rest) do
  known[lot] = tonumber(left[2 * i - 1]) + tonumber(left[2 * i]) > 0
end
for _, lots in ipairs({ARGV[9], account[2]}) do
  for lot, suffix in string.gmatch(lots, '(%d+)(o?)') do
    if known[lot] and not ordered[lot] then
      ordered[lot] = true
      local place = suffix == 'o' and overage or order
      place[#place + 1] = lot .. suffix
    end
  end
end
assert(ordered[id], 'the burn-down order lacks this grant')
for _, lot in ipairs(overage) do order[#order + 1] = lot end
assert(#order <= 400, 'an account has too many lots') -- unpack() ends at about 8000
local lots = table.concat(order, ' ')

local writes = {'lots', lots, 'e:' .. id, ARGV[7], 'f:' .. id, ARGV[8]}
local added
if account[3] then
  added = total - account[3] - account[4] - account[5] - account[6]
  if added <= 0 and lots == account[2] and account[7] == ARGV[7] and account[8] == ARGV[8] then
    return {'KEPT', epoch, seq}
  end
  -- Less than is known was read before something was added: newer knowledge stays.
  writes[7], writes[8] = 'a:' .. id, format('%d', account[3] + math.max(added, 0))
else
  writes[7], writes[8] = 'a:' .. id, format('%d', total - settled - withdrawn)
  writes[9], writes[10], writes[11], writes[12] = 'h:' .. id, '0', 's:' .. id, ARGV[5]
  writes[13], writes[14] = 'w:' .. id, ARGV[6]
end
call('HSET', KEYS[2], unpack(writes))
return {'OK', epoch, next_seq(KEYS[1], seq)}
