-- needs: lib/gate.lua lib/clock.lua lib/amended.lua lib/lineage.lua
--
-- Give what a delegated key that is over has not used back to its parent's cap in total.
--
-- KEYS  1 shard meta
--       2 account
-- ARGV  1 epoch seen (0: none)
--       2 highest seq seen
--       3 key id
--       4 last: '1' forgets the key, else '0'
-- Result, always starting with {status, epoch, seq}:
--   OK         counted: microcredits of the key that still count in its parent, by its own calls
--              and by what keys carved out of it count in it; 0 for a key that is not here
--   ALIVE      neither the key nor one that it was carved from is revoked or expired
--   LOAD       the account is not loaded, so that there is nothing to give back; a worker that has
--              read Postgres already, but before this, is told to read it again
--   STALE, REGRESSED, CLOSED   as in admit
-- The share p:<key id> becomes '<parent>:<budget>:<counted>'. From then on the key is over for
-- good, whatever the clock says. Repeating it does no harm: what counts in the parent is set to
-- what the key has used by now. So while calls of the key run it is repeated, to give back the rest
-- of what they held, and run once with `last` when they have ended. Leaves first: of a key that is
-- forgotten nothing comes back to it, so forget those first that were carved out of it.
-- At maxmemory it fails before it has written anything, but for `last`, which works there.
--
-- Example: EVALSHA ... 2 tk:{s012}:meta tk:{s012}:a:7 3 47 19 0   -> {'OK', 3, 48, 350000}
assert(#KEYS == 2 and #ARGV == 4, 'giveback takes 2 KEYS and 4 ARGV')
local key_id, last = ARGV[3], ARGV[4] == '1'
assert(string.find(key_id, '^%d+$'), 'a key id is a number')
local call, format = redis.call, string.format
local refusal, epoch, seq = gate(KEYS[1], ARGV[1], ARGV[2])
if refusal then return refusal end
local account = call('HMGET', KEYS[2], 'epoch', 'k:' .. key_id, 'p:' .. key_id,
  'K' .. key_id .. '.ct')
if tonumber(account[1]) ~= epoch then
  seq = next_seq(KEYS[1], seq)
  note_amended(KEYS[2], epoch, seq)
  return {'LOAD', epoch, seq}
end

local now_us = clock_us()
local now_ms = (now_us - now_us % 1000) / 1000
local expires_ms, rules = string.match(account[2] or '-1', '^(-?%d+) ?(.*)$')
expires_ms = tonumber(expires_ms)
if (expires_ms == 0 or now_ms < expires_ms) and not lineage_of(KEYS[2], key_id, rules, now_ms) then
  return {'ALIVE', epoch, seq}
end

local parent, budget, before = string.match(account[3] or '', '^(%d+):(%d+):?(%d*)$')
local counted, writes = 0, {}
if parent then
  before = tonumber(before ~= '' and before or budget)
  counted = tonumber(string.match(account[4] or '', '^0:(%d+)$') or before)
  local field = 'K' .. parent .. '.ct'
  local used = string.match(call('HGET', KEYS[2], field) or '', '^0:(%d+)$')
  if used and counted ~= before then
    writes[1], writes[2] = field, format('0:%d', math.max(used + counted - before, 0))
  end
  local share = format('%s:%s:%d', parent, budget, counted)
  if not last and share ~= account[3] then
    writes[#writes + 1], writes[#writes + 2] = 'p:' .. key_id, share
  end
end
local gone = 0
if last then
  local fields = {'k:' .. key_id, 'p:' .. key_id}
  for _, kind in ipairs({'rs', 'rm', 'qm', 'qp', 'cc', 'cd', 'cm', 'ct'}) do
    fields[#fields + 1] = 'K' .. key_id .. '.' .. kind
  end
  -- HDEL first: it is never refused for lack of memory, and lets the writes after it pass.
  gone = call('HDEL', KEYS[2], unpack(fields))
end
if #writes > 0 then call('HSET', KEYS[2], unpack(writes)) end
if gone > 0 or #writes > 0 then seq = next_seq(KEYS[1], seq) end
return {'OK', epoch, seq, counted}
