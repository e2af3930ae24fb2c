-- needs: lib/gate.lua lib/amended.lua
--
-- Add a lot of credits to a loaded account, once.
--
-- KEYS  1 shard meta
--       2 account
-- ARGV  1 epoch seen (0: none)
--       2 highest seq seen
--       3 grant id
--       4 amount, microcredits
--       5 expires_ms (0: never)
--       6 effective_ms
--       7 the account's grant ids in burn-down order, the new one among them, separated by spaces
-- Result, always starting with {status, epoch, seq}:
--   OK
--   KEPT       the account has this grant
--   LOAD       the account is not loaded; as in amend
--   STALE, REGRESSED   as in admit
-- Run it after the grant is committed in Postgres. Grants may arrive in another order than they
-- were made: ids that the account does not know are left out (their own script brings them), and
-- those that the order does not know stay, after the others.
--
-- Example: EVALSHA ... 2 tk:{s012}:meta tk:{s012}:a:7 3 44 15 500000000 1795000000000 1790000000000
--            '15 12'
--   -> {'OK', 3, 45}
assert(#KEYS == 2 and #ARGV == 7, 'grant takes 2 KEYS and 7 ARGV')
local id = ARGV[3]
assert(string.find(id, '^%d+$'), 'a grant id is a number')
whole(ARGV[4])
whole(ARGV[5])
whole(ARGV[6])
local call = redis.call
local refusal, epoch, seq = gate(KEYS[1], ARGV[1], ARGV[2])
if refusal then return refusal end
local account = call('HMGET', KEYS[2], 'epoch', 'lots', 'a:' .. id)
if tonumber(account[1]) ~= epoch then
  seq = seq + 1
  note_amended(KEYS[2], epoch, seq)
  call('HSET', KEYS[1], 'seq', seq)
  return {'LOAD', epoch, seq}
end
if account[3] then return {'KEPT', epoch, seq} end

local known, order, ordered = {[id] = true}, {}, {}
for lot in string.gmatch(account[2], '%d+') do known[lot] = true end
for _, lots in ipairs({ARGV[7], account[2]}) do
  for lot in string.gmatch(lots, '%d+') do
    if known[lot] and not ordered[lot] then
      ordered[lot] = true
      order[#order + 1] = lot
    end
  end
end
assert(ordered[id], 'the burn-down order lacks the new grant')
assert(#order <= 500, 'an account has too many lots') -- unpack() ends at about 8000
call('HSET', KEYS[2], 'lots', table.concat(order, ' '), 'a:' .. id, ARGV[4], 'h:' .. id, 0,
  's:' .. id, 0, 'e:' .. id, ARGV[5], 'f:' .. id, ARGV[6])
call('HSET', KEYS[1], 'seq', seq + 1)
return {'OK', epoch, seq + 1}
