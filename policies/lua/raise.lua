-- needs: lib/gate.lua lib/clock.lua lib/calendar.lua lib/lots.lua lib/rules.lua lib/holds.lua
-- needs: lib/places.lua lib/lineage.lua
--
-- Let a running call hold more than it was admitted with, as far as credits and caps go; and look
-- whether its key and account may still make calls. All checks, then all writes.
--
-- KEYS  1 shard meta
--       2 account
--       3 shard holds
--       4 shard leases
--       5 session, if the call has one
-- ARGV  1 call id
--       2 epoch seen (0: none)
--       3 highest seq seen
--       4 key id
--       5 least and
--       6 target: what the call must and should hold in all, microcredits
--       7 the route's limits and caps of each account, as admit; may be left out
-- Result, always starting with {status, epoch, seq}:
--   OK         held (in all, now), remaining, allocation, counted ('': none), as admit. Held is the
--              target, or as much above the least as credits and caps allow; no less than before
--   KEY        the key, or one that it was carved from, is revoked or expired
--   SUSPENDED  the account is
--   CAP        as admit; spent counts what this call holds
--   CREDITS    available (with the room in overage), held by other calls (over the lots that are
--              valid now), lacking: microcredits from what is held to the least
--   GONE       no such hold: settled, voided, of an older epoch; or the account is gone
--   STALE, REGRESSED, CLOSED   as in admit
-- Repeating it does no harm, because what is told is absolute. Least and target 0 only look. The
-- lease and what is due stay as they are. The new parts come from the lots that are valid now, in
-- burn-down order, and join the hold's in that order, so that its end charges them in it.
-- Of caps, those bind that counted the call when it was admitted, at the limit that they have now.
-- A call that is raised in another window than it was counted in (on the next day) is counted in
-- that one from then on, with all that it holds: otherwise a call that never ends would pass a cap
-- by what it is raised by.
-- At maxmemory it fails before it has written anything.
--
-- Example: EVALSHA ... 4 tk:{s012}:meta tk:{s012}:a:7 tk:{s012}:holds tk:{s012}:leases
--            0190...ab 3 42 5 2600000 5000000
--   -> {'OK', 3, 43, 5000000, 995000000, '12:5000000', ''}
assert((#KEYS == 4 or #KEYS == 5) and (#ARGV == 6 or #ARGV == 7),
  'raise takes 4 or 5 KEYS and 6 or 7 ARGV')
local least, target = whole(ARGV[5]), whole(ARGV[6])
assert(least <= target, 'the least is above the target')
local refusal, epoch, seq = gate(KEYS[1], ARGV[2], ARGV[3])
if refusal then return refusal end
local call, format = redis.call, string.format
local text = call('HGET', KEYS[3], ARGV[1])
if not text then return {'GONE', epoch, seq} end
local account_id, admitted_ms, held, due, units, counted, allocation, context =
  string.match(text, HOLD)
if not held then return {'GONE', epoch, seq} end
assert(account_id == string.match(KEYS[2], ':a:(.+)'), 'the hold is of another account')
held = tonumber(held)
local account = call('HMGET', KEYS[2], 'epoch', 'status', 'lots', 'rules', 'k:' .. ARGV[4])
if tonumber(account[1]) ~= epoch then return {'GONE', epoch, seq} end
local now_us = clock_us()
local now_ms = (now_us - now_us % 1000) / 1000
local key_expires_ms, key_rules = string.match(account[5] or '-1', '^(-?%d+) ?(.*)$')
key_expires_ms = tonumber(key_expires_ms)
if key_expires_ms ~= 0 and key_expires_ms <= now_ms then return {'KEY', epoch, seq} end
local status, lineage = lineage_of(KEYS[2], ARGV[4], key_rules, now_ms)
if status then return {'KEY', epoch, seq} end
if account[2] ~= 'active' then return {'SUSPENDED', epoch, seq} end

local lots = read_lots(KEYS[2], account[3], '', now_ms)
local remaining = remaining_of(lots)
local function as_it_is() return {'OK', epoch, seq, held, remaining, allocation, counted} end
if target <= held then return as_it_is() end

-- Caps, then credits: `reachable` is what the call can hold in all.
local reachable = target
local scopes = {A = account[4] or '', ['K' .. ARGV[4]] = key_rules}
for i = 1, #lineage, 2 do scopes[lineage[i]] = lineage[i + 1] end
local route_scope, route_rules = string.match(ARGV[7] or '', '^(R%d+) (.*)$')
if route_scope then scopes[route_scope] = route_rules end
local places = places_of(KEYS[2], KEYS[5], counted, held, scopes, now_ms)
for _, place in ipairs(places) do
  if place.others then
    local most = place.limit - place.others
    if least > held and least > most then
      local in_time = place.end_ms > 0 and least <= place.limit
      return {'CAP', epoch, seq, place.source, place.window, place.limit, place.spent,
        in_time and place.end_ms - now_ms or 0}
    end
    reachable = math.min(reachable, most)
  end
end
local own, available, held_by_others = {}, 0, 0
for token, part in string.gmatch(allocation, '(%d+o?):(%d+)') do own[token] = tonumber(part) end
for _, lot in ipairs(lots) do
  if lot.spendable then
    available = available + lot.available
    held_by_others = held_by_others + math.max(lot.held - (own[lot.token] or 0), 0)
  end
end
if least > held + available then
  return {'CREDITS', epoch, seq, available, held_by_others, least - held}
end
reachable = math.min(reachable, held + available)
if reachable <= held then return as_it_is() end

-- Every check has passed. Lots that the order does not name (any more) came before the others.
local missing, parts, writes, in_order = reachable - held, {}, {}, {}
for _, lot in ipairs(lots) do in_order[lot.token] = true end
for token, part in string.gmatch(allocation, '(%d+o?):(%d+)') do
  if not in_order[token] then parts[#parts + 1] = token .. ':' .. part end
end
for _, lot in ipairs(lots) do
  local part = lot.spendable and math.min(lot.available, missing) or 0
  if part > 0 then
    missing = missing - part
    local w = #writes
    writes[w + 1], writes[w + 2] = 'a:' .. lot.id, format('%d', lot.available - part)
    writes[w + 3], writes[w + 4] = 'h:' .. lot.id, format('%d', lot.held + part)
  end
  part = part + (own[lot.token] or 0)
  if part > 0 then parts[#parts + 1] = format('%s:%d', lot.token, part) end
end
allocation = table.concat(parts, ' ')
local tokens, of_session = {}, {}
for n, place in ipairs(places) do
  tokens[n] = place.token
  if place.field then
    writes[#writes + 1] = place.field
    writes[#writes + 1] = format('%d:%d', place.end_ms, place.others + reachable)
  elseif place.session then
    of_session[#of_session + 1] = place.session
    of_session[#of_session + 1] = format('%d', place.others + reachable)
  end
end
counted = table.concat(tokens, ' ')
call('HSET', KEYS[2], unpack(writes))
if #of_session > 0 then
  call('HSET', KEYS[5], unpack(of_session))
  call('PEXPIRE', KEYS[5], 86400000) -- SESSION_TTL_MS
end
call('HSET', KEYS[3], ARGV[1], format('h|%s|%s|%d|%s|%s|%s|%s|%s', account_id, admitted_ms,
  reachable, due, units, counted, allocation, context))
remaining = remaining - (reachable - held)
return {'OK', epoch, next_seq(KEYS[1], seq), reachable, remaining, allocation, counted}
