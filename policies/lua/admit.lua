-- needs: lib/gate.lua lib/clock.lua lib/calendar.lua
--
-- Decide whether a call may run, and reserve what it may cost: all checks, then all writes, once per call id.
--
-- KEYS  1 shard meta (hash: epoch, seq)   2 account (hash)
--       3 shard holds (hash: call id → hold text)   4 shard leases (zset: deadline in ms → call id)
-- ARGV  1 call id (32 hex digits)
--       2 epoch that the caller has seen (0: none)   3 highest seq that the caller has seen in it
--       4 key id   5 amount to hold, microcredits   6 lease, ms
--       7 floor: microcredits that the call costs if its hold expires (≤ amount)
--       8 context: stored in the hold and later in the outbox, never read here
-- Result, always starting with {status, epoch, seq}:
--   OK           remaining, allocation ('gid:amt gid:amt', '' if nothing was held), now_ms, rpm_limit, rpm_remaining
--   STALE        the shard is empty (epoch 0) or of another epoch;  REGRESSED  it has lost writes
--   LOAD         the account, or this key of it, is not here: read it from Postgres and run `load`
--   KEY          revoked or expired;  SUSPENDED  the account is
--   RATE         limit, retry_after_ms;  QUOTA  limit, retry_after_ms;  CONCURRENCY  limit
--   CREDITS      available, held (over the lots that are valid now)
--   SETTLED      this call id has been settled: a call id may not be used again
-- Limits count admitted calls only and a void does not give a call back to them. The month's count is kept only while
-- the plan has a monthly quota. A call that was admitted before gets the same allocation and time again.
--
-- Example: EVALSHA … 4 tk:{012}:meta tk:{012}:a:7 tk:{012}:holds tk:{012}:leases
--            0190…ab 3 41 5 2500000 130000 100000 '1,7,5,2,9'
--       →  {'OK', 3, 42, 997500000, '12:2500000', 1790000000123, 600, 599}
assert(#KEYS == 4 and #ARGV == 8, 'admit takes 4 KEYS and 8 ARGV')
local call_id, context = ARGV[1], ARGV[8]
local amount, lease_ms, floor = whole(ARGV[5]), whole(ARGV[6]), whole(ARGV[7])
assert(floor <= amount, 'the floor of a hold is above its amount')
local call = redis.call

local refusal, epoch, seq = gate(KEYS[1], ARGV[2], ARGV[3])
if refusal then return refusal end
local stored = call('HGET', KEYS[3], call_id)
local account = call('HMGET', KEYS[2], 'epoch', 'status', 'rpm', 'rpmonth', 'conc', 'lots', 'running', 'tat',
  'month', 'count', 'k:' .. ARGV[4])
if tonumber(account[1]) ~= epoch then return {'LOAD', epoch, seq} end
local now_us = clock_us()
local now_ms = (now_us - now_us % 1000) / 1000
local status, order, key_expires_ms = account[2], account[6], tonumber(account[11])

if not stored then
  if not key_expires_ms then return {'LOAD', epoch, seq} end
  if key_expires_ms ~= 0 and key_expires_ms <= now_ms then return {'KEY', epoch, seq} end
  if status ~= 'active' then return {'SUSPENDED', epoch, seq} end
end

-- Rate: GCRA with the whole minute's allowance as burst. tat is the theoretical arrival time.
local rpm, rpm_remaining, tat = tonumber(account[3]), 0, nil
if rpm > 0 then
  local interval_us = (59999999 - 59999999 % rpm) / rpm + 1
  local burst_us = interval_us * rpm
  tat = tonumber(account[8])
  if tat < now_us then tat = now_us end
  -- A tat beyond the burst can only come from a clock that went back or a plan that changed.
  if tat > now_us + burst_us then tat = now_us + burst_us end
  if not stored then
    tat = tat + interval_us
    local excess_us = tat - now_us - burst_us
    if excess_us > 0 then return {'RATE', epoch, seq, rpm, math.ceil(excess_us / 1000)} end
  end
  local left_us = burst_us - (tat - now_us)
  rpm_remaining = (left_us - left_us % interval_us) / interval_us
end

-- Quota of the calendar month, UTC.
local rpmonth, month, count = tonumber(account[4]), nil, nil
if rpmonth > 0 and not stored then
  month = month_of((now_ms - now_ms % 1000) / 1000)
  count = tonumber(account[9]) == month and tonumber(account[10]) or 0
  if count >= rpmonth then return {'QUOTA', epoch, seq, rpmonth, month_end_s(month) * 1000 - now_ms} end
end

local conc, running = tonumber(account[5]), tonumber(account[7])
if conc > 0 and running >= conc and not stored then return {'CONCURRENCY', epoch, seq, conc} end

-- Credits: the lots that are valid now pay in burn-down order.
local fields, ids = {}, {}
for id in string.gmatch(order, '%d+') do
  local n = #fields
  ids[#ids + 1] = id
  fields[n + 1], fields[n + 2], fields[n + 3], fields[n + 4] = 'a:' .. id, 'h:' .. id, 'e:' .. id, 'f:' .. id
end
local lots = #ids > 0 and call('HMGET', KEYS[2], unpack(fields)) or {}
local available, held, missing = 0, 0, amount
local writes, parts = {}, {}
for i = 1, #ids do
  local n = 4 * i - 4
  local expires_ms = tonumber(lots[n + 3])
  if tonumber(lots[n + 4]) <= now_ms and (expires_ms == 0 or now_ms < expires_ms) then
    local lot_available, lot_held = tonumber(lots[n + 1]), tonumber(lots[n + 2])
    available, held = available + lot_available, held + lot_held
    local part = lot_available < missing and lot_available or missing
    if part > 0 then
      missing = missing - part
      local w = #writes
      writes[w + 1], writes[w + 2] = fields[n + 1], lot_available - part
      writes[w + 3], writes[w + 4] = fields[n + 2], lot_held + part
      parts[#parts + 1] = string.format('%s:%d', ids[i], part)
    end
  end
end
if stored then
  local admitted_ms, allocation = string.match(stored, '^h|%d+|(%d+)|%d+|%d+|([^|]*)|')
  if not admitted_ms then return {'SETTLED', epoch, seq} end
  return {'OK', epoch, seq, available, allocation, tonumber(admitted_ms), rpm, rpm_remaining}
end
if missing > 0 then return {'CREDITS', epoch, seq, available, held} end

-- Every check has passed. The first write may be refused for lack of memory, so it must be this one: nothing is
-- written yet then.
local w = #writes
writes[w + 1], writes[w + 2] = 'running', running + 1
if tat then writes[w + 3], writes[w + 4], w = 'tat', tat, w + 2 end
if month then writes[w + 3], writes[w + 4], writes[w + 5], writes[w + 6] = 'month', month, 'count', count + 1 end
call('HSET', KEYS[2], unpack(writes))
local allocation = table.concat(parts, ' ')
call('HSET', KEYS[3], call_id, string.format('h|%s|%d|%d|%d|%s|%s', string.match(KEYS[2], ':a:(%d+)$'), now_ms,
  amount, floor, allocation, context))
call('ZADD', KEYS[4], now_ms + lease_ms, call_id)
call('HSET', KEYS[1], 'seq', seq + 1)
return {'OK', epoch, seq + 1, available - amount, allocation, now_ms, rpm, rpm_remaining}
