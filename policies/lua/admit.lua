-- needs: lib/gate.lua lib/clock.lua
--
-- Decide whether a call may run, and reserve what it may cost: all checks, then all writes, once
-- per call id.
--
-- KEYS  1 shard meta (hash: epoch, seq)
--       2 account (hash)
--       3 shard holds (hash: call id -> text of the hold)
--       4 shard leases (sorted set: call id by 2 * deadline in ms + stage; 0: not dispatched)
--       5 session of the account (hash), exactly if there is a session id
-- ARGV  1 call id (32 hex digits)
--       2 epoch that the caller has seen (0: none)
--       3 highest seq that the caller has seen in it
--       4 key id
--       5 amount to hold, microcredits
--       6 lease, ms; 0: a dry run, which decides and replies the same but writes nothing
--       7 due: microcredits that the call costs if its hold expires dispatched (at most the amount)
--       8 context: kept in the hold and then in the outbox, never read here
--       9 and 10, together or not at all:
--         the route's limits and caps of each account: '' or 'R<route id> <rules>'
--         session id ('': none)
--       11, only with these two: the discount of the account that the amount was computed with, in
--         ten-thousandths; 0 without it
--       12, only with these three: the version of the key's guards that were checked; 0 without it
-- Result, always starting with {status, epoch, seq}:
--   OK           remaining (below 0: debt in overage), allocation ('gid:amt gid:amt', a lot of
--                overage as '99o:amt'; '' if nothing is held, as in a dry run), now_ms, rpm_limit,
--                rpm_remaining (of the rate per minute with the fewest calls left; 0, 0: none) and,
--                unless it is '', counted (see lib/rules.lua)
--   STALE        the shard is empty (epoch 0) or of another epoch
--   CLOSED       the shard is being rebuilt
--   REGRESSED    the shard has lost writes that the caller has seen
--   LOAD         the account, this key of it, or one that the key was carved from is not here: read
--                Postgres, then run `load`
--   KEY          the key, or one that it was carved from, is revoked or expired
--   SUSPENDED    the account is
--   GUARD        version that the key's guards have: another than was checked
--   TERMS        discount that the account has: another than was assumed
--   RATE         limit, retry_after_ms, source
--   QUOTA        limit, retry_after_ms, source
--   CONCURRENCY  limit, source
--   CAP          source, window, limit, spent (settled or held, microcredits), retry_after_ms
--                (0: no passing of time lets this amount through)
--   CREDITS      available (with the room in overage), held (over the lots that are valid now)
--   SETTLED      this call id has been settled: it can't be used again
-- A source is 'account', 'key', 'route' or, of a cap, 'session'; a window is 'day', 'month',
-- 'total' or 'session'. The account's fast fields are asked first, then its rules, the key's, those
-- of the keys that it was carved from, the route's; the first to refuse is named. Limits count
-- admitted calls; a void does not take a call back from rates and quotas, but from caps and
-- concurrency. A quota or cap counts from when there is one. A call that holds nothing passes every
-- cap. A call id that is admitted already gets the same allocation, time and counted again,
-- whatever has changed since. At maxmemory it fails before it has written anything.
--
-- Example: EVALSHA ... 4 tk:{s012}:meta tk:{s012}:a:7 tk:{s012}:holds tk:{s012}:leases
--            0190...ab 3 41 5 2500000 30000 100000 1,7,5,2,9,
--   -> {'OK', 3, 42, 997500000, '12:2500000', 1790000000123, 600, 599}
assert(#KEYS == 4 and #ARGV == 8
  or #ARGV >= 10 and #ARGV <= 12 and #KEYS == (ARGV[10] == '' and 4 or 5),
  'admit takes 4 KEYS and 8 or 10 to 12 ARGV, with a session id 5 KEYS')
-- Names that the common case looks up often: each costs less as a local one.
local KEYS, ARGV, call, format, tonumber = KEYS, ARGV, redis.call, string.format, tonumber
local amount, lease_ms, due = whole(ARGV[5]), whole(ARGV[6]), whole(ARGV[7])
assert(due <= amount, 'what is due of a hold is above its amount')

local refusal, epoch, seq = gate(KEYS[1], ARGV[2], ARGV[3])
if refusal then return refusal end
local stored = call('HGET', KEYS[3], ARGV[1])
local account = call('HMGET', KEYS[2], 'epoch', 'running', 'status', 'rpm', 'rpmonth', 'conc',
  'lots', 'tat', 'month_end', 'count', 'k:' .. ARGV[4], 'rules')
if tonumber(account[1]) ~= epoch then return {'LOAD', epoch, seq} end
local now_us = clock_us()
local now_ms = (now_us - now_us % 1000) / 1000

local key_rules, lineage
if not stored then
  local key_expires_ms = tonumber(account[11])
  if not key_expires_ms then
    if not account[11] then return {'LOAD', epoch, seq} end
    key_expires_ms, key_rules = string.match(account[11], '^(-?%d+) (.*)$')
    key_expires_ms = tonumber(key_expires_ms)
  end
  if key_expires_ms ~= 0 and key_expires_ms <= now_ms then return {'KEY', epoch, seq} end
  if key_rules and string.find(key_rules, 'up:', 1, true) then
-- needs: lib/lineage.lua
    local status
    status, lineage = lineage_of(KEYS[2], ARGV[4], key_rules, now_ms)
    if status then return {status, epoch, seq} end
  end
  if account[3] ~= 'active' then return {'SUSPENDED', epoch, seq} end
  if key_rules or ARGV[12] then
    local version = tonumber(string.match(key_rules or '', 'gv:(%d+)') or 0)
    if version ~= whole(ARGV[12] or '0') then return {'GUARD', epoch, seq, version} end
  end
  if account[12] ~= '' or ARGV[11] then
    local discount = tonumber(string.match(account[12] or '', 'dp:(%d+)') or 0)
    if discount ~= whole(ARGV[11] or '0') then return {'TERMS', epoch, seq, discount} end
  end
end

-- Rate: GCRA whose burst is the whole minute's allowance; tat is the theoretical arrival time.
local rpm, rpm_remaining, tat_us = tonumber(account[4]), 0, 0
if rpm > 0 then
  local interval_us = (59999999 - 59999999 % rpm) / rpm + 1
  local burst_us = interval_us * rpm
  tat_us = tonumber(account[8])
  -- Beyond the burst it can only be because the clock went back or the plan changed: start anew.
  if tat_us < now_us or tat_us > now_us + burst_us then tat_us = now_us end
  if not stored then tat_us = tat_us + interval_us end
  local left_us = now_us + burst_us - tat_us
  if left_us < 0 then return {'RATE', epoch, seq, rpm, math.ceil(-left_us / 1000), 'account'} end
  rpm_remaining = (left_us - left_us % interval_us) / interval_us
end

-- Quota of the calendar month, UTC.
local rpmonth, count, new_month_end = tonumber(account[5]), 0, nil
if rpmonth > 0 and not stored then
  local month_end = tonumber(account[9])
  count = tonumber(account[10])
  if month_end <= now_ms then
-- needs: lib/calendar.lua
    month_end, count = month_end_ms(now_ms), 0
    new_month_end = month_end
  end
  if count >= rpmonth then return {'QUOTA', epoch, seq, rpmonth, month_end - now_ms, 'account'} end
  count = count + 1
end

local running, conc = tonumber(account[2]), tonumber(account[6])
if conc > 0 and running >= conc and not stored then
  return {'CONCURRENCY', epoch, seq, conc, 'account'}
end

-- Everything else that may refuse, for accounts, keys and routes that have it.
local asked
local route_rules = ARGV[9] or ''
local rules = account[12] or ''
local limiting = rules ~= '' and string.find(rules, '[cqr]%l:') -- more than pw and dp
if (limiting or key_rules or route_rules ~= '') and not stored then
-- needs: lib/calendar.lua lib/limits.lua
  local texts = {'A', rules, 'K' .. ARGV[4], key_rules or ''}
  for _, text in ipairs(lineage or {}) do texts[#texts + 1] = text end
  if route_rules ~= '' then
    local scope, its_rules = string.match(route_rules, '^(R%d+) (.*)$')
    assert(scope, "a route's rules must begin with its scope")
    texts[#texts + 1], texts[#texts + 2] = scope, its_rules
  end
  refusal, asked = check_rules(KEYS[2], KEYS[5], texts, amount, now_us, epoch, seq)
  if refusal then return refusal end
end

-- Credits: the lots that are valid now pay, in burn-down order.
local order, available, held, remaining, allocation, writes = account[7], 0, 0, 0, '', nil
if tonumber(order) then -- one lot without overage is the common case, and half the work
  local lot_available, lot_held = 'a:' .. order, 'h:' .. order
  local lot = call('HMGET', KEYS[2], lot_available, lot_held, 'e:' .. order, 'f:' .. order)
  local expires_ms = tonumber(lot[3])
  if tonumber(lot[4]) <= now_ms and (expires_ms == 0 or now_ms < expires_ms) then
    available, held = tonumber(lot[1]), tonumber(lot[2])
    if amount > 0 and amount <= available then
      allocation = format('%s:%d', order, amount)
      writes = {
        lot_available, format('%d', available - amount), lot_held, format('%d', held + amount),
      }
    end
  end
  remaining = available
elseif order ~= '' then
-- needs: lib/allocate.lua
  available, held, remaining, allocation, writes = allocate(KEYS[2], order, amount, now_ms)
end
if stored then
  local admitted_ms, counted, allocated =
    string.match(stored, '^h|%d+|(%d+)|%d+|%d+|[^|]*|([^|]*)|([^|]*)|')
  if not admitted_ms then return {'SETTLED', epoch, seq} end
  return {'OK', epoch, seq, remaining, allocated, tonumber(admitted_ms), rpm, rpm_remaining,
    counted ~= '' and counted or nil}
end
if amount > available then return {'CREDITS', epoch, seq, available, held} end

-- Every check has passed. Numbers go as text: redis.call would print them with %.17g, slowly.
writes = writes or {}
local counted, limited = nil, rpm > 0 or rpmonth > 0
if asked then
  for _, text in ipairs(asked.account) do writes[#writes + 1] = text end
  counted = asked.counted ~= '' and asked.counted or nil
  if asked.rpm_limit and (rpm == 0 or asked.rpm_remaining < rpm_remaining) then
    rpm, rpm_remaining = asked.rpm_limit, asked.rpm_remaining
  end
end
if lease_ms == 0 then
  return {'OK', epoch, seq, remaining - amount, '', now_ms, rpm, rpm_remaining, counted}
end
if new_month_end then
  writes[#writes + 1], writes[#writes + 2] = 'month_end', format('%d', new_month_end)
end
local running_now = format('%d', running + 1)
if limited then
  call('HSET', KEYS[2], 'running', running_now, 'tat', format('%d', tat_us),
    'count', format('%d', count), unpack(writes))
else
  call('HSET', KEYS[2], 'running', running_now, unpack(writes))
end
if asked and #asked.session > 0 then
  call('HSET', KEYS[5], unpack(asked.session))
  call('PEXPIRE', KEYS[5], 86400000) -- SESSION_TTL_MS
end
local account_id = string.sub(KEYS[2], #KEYS[1] - 1) -- 'tk:{s012}:a:7' less 'tk:{s012}:a:'
call('HSET', KEYS[3], ARGV[1], format('h|%s|%d|%d|%d||%s|%s|%s', account_id, now_ms, amount, due,
  counted or '', allocation, ARGV[8]))
call('ZADD', KEYS[4], format('%d', 2 * (now_ms + lease_ms)), ARGV[1])
seq = seq + 1
call('HSET', KEYS[1], 'seq', format('%d', seq))
return {'OK', epoch, seq, remaining - amount, allocation, now_ms, rpm, rpm_remaining, counted}
