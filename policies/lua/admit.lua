-- needs: lib/gate.lua lib/clock.lua lib/calendar.lua
--
-- Decide whether a call may run, and reserve what it may cost: all checks, then all writes, once
-- per call id.
--
-- KEYS  1 shard meta (hash: epoch, seq)
--       2 account (hash)
--       3 shard holds (hash: call id -> text of the hold)
--       4 shard leases (sorted set: call id by deadline in ms)
-- ARGV  1 call id (32 hex digits)
--       2 epoch that the caller has seen (0: none)
--       3 highest seq that the caller has seen in it
--       4 key id
--       5 amount to hold, microcredits
--       6 lease, ms
--       7 floor: microcredits that the call costs if its hold expires (at most the amount)
--       8 context: kept in the hold and then in the outbox, never read here
-- Result, always starting with {status, epoch, seq}:
--   OK           remaining, allocation ('gid:amt gid:amt', '' if nothing is held), now_ms,
--                rpm_limit, rpm_remaining (0, 0: no limit)
--   STALE        the shard is empty (epoch 0) or of another epoch
--   REGRESSED    the shard has lost writes that the caller has seen
--   LOAD         the account, or this key of it, is not here: read Postgres, then run `load`
--   KEY          the key is revoked or expired
--   SUSPENDED    the account is
--   RATE         limit, retry_after_ms
--   QUOTA        limit, retry_after_ms
--   CONCURRENCY  limit
--   CREDITS      available, held (microcredits, over the lots that are valid now)
--   SETTLED      this call id has been settled: it can't be used again
-- Limits count admitted calls; a void does not take a call back from the rate and the quota. The
-- quota counts from when the plan has one. A call id that is admitted already gets the same
-- allocation and time again, whatever has changed since.
-- At maxmemory it fails before it has written anything.
--
-- Example: EVALSHA ... 4 tk:{s012}:meta tk:{s012}:a:7 tk:{s012}:holds tk:{s012}:leases
--            0190...ab 3 41 5 2500000 130000 100000 1,7,5,2,9
--   -> {'OK', 3, 42, 997500000, '12:2500000', 1790000000123, 600, 599}
assert(#KEYS == 4 and #ARGV == 8, 'admit takes 4 KEYS and 8 ARGV')
local amount, lease_ms, floor = whole(ARGV[5]), whole(ARGV[6]), whole(ARGV[7])
assert(floor <= amount, 'the floor of a hold is above its amount')
local call, format = redis.call, string.format

local refusal, epoch, seq = gate(KEYS[1], ARGV[2], ARGV[3])
if refusal then return refusal end
local stored = call('HGET', KEYS[3], ARGV[1])
local account = call('HMGET', KEYS[2], 'epoch', 'running', 'status', 'rpm', 'rpmonth', 'conc',
  'lots', 'tat', 'month_end', 'count', 'k:' .. ARGV[4])
if tonumber(account[1]) ~= epoch then return {'LOAD', epoch, seq} end
local now_us = clock_us()
local now_ms = (now_us - now_us % 1000) / 1000

if not stored then
  local key_expires_ms = tonumber(account[11])
  if not key_expires_ms then return {'LOAD', epoch, seq} end
  if key_expires_ms ~= 0 and key_expires_ms <= now_ms then return {'KEY', epoch, seq} end
  if account[3] ~= 'active' then return {'SUSPENDED', epoch, seq} end
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
  if left_us < 0 then return {'RATE', epoch, seq, rpm, math.ceil(-left_us / 1000)} end
  rpm_remaining = (left_us - left_us % interval_us) / interval_us
end

-- Quota of the calendar month, UTC.
local rpmonth, month_end, count = tonumber(account[5]), 0, 0
if rpmonth > 0 and not stored then
  month_end, count = tonumber(account[9]), tonumber(account[10])
  if month_end <= now_ms then month_end, count = month_end_ms(now_ms), 0 end
  if count >= rpmonth then return {'QUOTA', epoch, seq, rpmonth, month_end - now_ms} end
  count = count + 1
end

local running, conc = tonumber(account[2]), tonumber(account[6])
if conc > 0 and running >= conc and not stored then return {'CONCURRENCY', epoch, seq, conc} end

-- Credits: the lots that are valid now pay, in burn-down order.
local order, available, held, allocation, writes = account[7], 0, 0, '', nil
if string.find(order, '^%d+$') then -- one lot is the common case, and half the work
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
elseif order ~= '' then
  local fields, parts, missing = {}, {}, amount
  for id in string.gmatch(order, '%d+') do
    local n = #fields
    fields[n + 1], fields[n + 2], fields[n + 3], fields[n + 4] =
      'a:' .. id, 'h:' .. id, 'e:' .. id, 'f:' .. id
  end
  local values = call('HMGET', KEYS[2], unpack(fields))
  writes = {}
  for n = 1, #fields, 4 do
    local expires_ms = tonumber(values[n + 2])
    if tonumber(values[n + 3]) <= now_ms and (expires_ms == 0 or now_ms < expires_ms) then
      local lot_available, lot_held = tonumber(values[n]), tonumber(values[n + 1])
      available, held = available + lot_available, held + lot_held
      local part = lot_available < missing and lot_available or missing
      if part > 0 then
        missing = missing - part
        parts[#parts + 1] = format('%s:%d', string.sub(fields[n], 3), part)
        local w = #writes
        writes[w + 1], writes[w + 2] = fields[n], format('%d', lot_available - part)
        writes[w + 3], writes[w + 4] = fields[n + 1], format('%d', lot_held + part)
      end
    end
  end
  allocation = table.concat(parts, ' ')
end
if stored then
  local admitted_ms, allocated = string.match(stored, '^h|%d+|(%d+)|%d+|%d+|([^|]*)|')
  if not admitted_ms then return {'SETTLED', epoch, seq} end
  return {'OK', epoch, seq, available, allocated, tonumber(admitted_ms), rpm, rpm_remaining}
end
if amount > available then return {'CREDITS', epoch, seq, available, held} end

-- Every check has passed. Numbers go as text: redis.call would print them with %.17g, slowly.
local running_now = format('%d', running + 1)
if rpm > 0 or rpmonth > 0 then
  call('HSET', KEYS[2], 'running', running_now, 'tat', format('%d', tat_us),
    'month_end', format('%d', month_end), 'count', format('%d', count), unpack(writes or {}))
else
  call('HSET', KEYS[2], 'running', running_now, unpack(writes or {}))
end
call('HSET', KEYS[3], ARGV[1], format('h|%s|%d|%d|%d|%s|%s',
  string.match(KEYS[2], ':a:(.+)'), now_ms, amount, floor, allocation, ARGV[8]))
call('ZADD', KEYS[4], format('%d', now_ms + lease_ms), ARGV[1])
seq = seq + 1
call('HSET', KEYS[1], 'seq', format('%d', seq))
return {'OK', epoch, seq, available - amount, allocation, now_ms, rpm, rpm_remaining}
