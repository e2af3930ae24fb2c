-- A hold is 'h|account|admitted_ms|amount|due|units|counted|allocation|context' while its call
-- runs. Once settled it is 's|outbox id', or 'x|outbox id' if it had run out, until the settlement
-- is acknowledged; the entry of that id says the rest. A hold whose counted says P is parked: no
-- call of it is running (see lib/parked.lua).
local HOLD = '^h|(%d+)|(%d+)|(%d+)|(%d+)|([^|]*)|([^|]*)|([^|]*)|(.*)$'

-- settled_reply(text, epoch, seq, now_ms): the reply of a settlement that has happened before.
local function settled_reply(text, epoch, seq, now_ms)
  local outbox_id = string.sub(text, 3)
  local entry = redis.call('XRANGE', KEYS[5], outbox_id, outbox_id)[1]
  if not entry then return {'GONE', epoch, seq} end
  local admitted_ms, then_ms, charged, uncollected, postings = string.match(entry[2][2],
    '^%x+|[^|]*|%d+|(%d+)|(%d+)|(%d+)|(%d+)|([^|]*)|')
  -- A late change goes by its call's id, which then is no settlement that waits here.
  if not charged then return {'GONE', epoch, seq} end
  local order = redis.call('HGET', KEYS[2], 'lots') or ''
  local remaining = remaining_of(read_lots(KEYS[2], order, '', now_ms))
  return {string.sub(text, 1, 1) == 'x' and 'EXPIRED' or 'OK', epoch, seq, tonumber(charged),
    tonumber(uncollected), remaining, postings, outbox_id, tonumber(then_ms), tonumber(admitted_ms)}
end

-- running_less(running, counted): the count of running calls without one whose hold this is.
local function running_less(running, counted)
  local less = string.find(counted, 'P', 1, true) and 0 or 1
  return string.format('%d', math.max(running - less, 0))
end

-- charge_lots(account key, burn-down order, allocation, owed, now_ms): takes what is owed from the
-- hold's own lots in order and gives the rest of each back to its lot, expired or not; what is owed
-- beyond the hold comes from valid lots in burn-down order, as far as it goes.
-- Returns: fields to write, postings, what could not be collected, remaining.
local function charge_lots(account_key, order, allocation, owed, now_ms)
  local lots, by_id = read_lots(account_key, order, allocation, now_ms)
  local due, charges, touched = owed, {}, {}
  local function charge(lot, microcredits)
    if not charges[lot.id] then
      charges[lot.id] = 0
      touched[#touched + 1] = lot
    end
    charges[lot.id] = charges[lot.id] + microcredits
    lot.settled = lot.settled + microcredits
    due = due - microcredits
  end
  for id, part in string.gmatch(allocation, '(%d+)o?:(%d+)') do
    local lot = by_id[id]
    if lot then
      -- A lot holds less than the hold says only if the account was deleted and loaded in between.
      part = math.min(tonumber(part), lot.held)
      local taken = math.min(part, due)
      lot.held, lot.available = lot.held - part, lot.available + part - taken
      charge(lot, taken)
    end
  end
  for _, lot in ipairs(due > 0 and lots or {}) do
    local taken = lot.spendable and math.min(lot.available, due) or 0
    if taken > 0 then
      lot.available = lot.available - taken
      charge(lot, taken)
    end
  end
  local writes, postings, format = {}, {}, string.format
  for _, lot in ipairs(touched) do
    local w = #writes
    writes[w + 1], writes[w + 2] = 'a:' .. lot.id, format('%d', lot.available)
    writes[w + 3], writes[w + 4] = 'h:' .. lot.id, format('%d', lot.held)
    writes[w + 5], writes[w + 6] = 's:' .. lot.id, format('%d', lot.settled)
    if charges[lot.id] > 0 then
      postings[#postings + 1] = format('%s:%d', lot.token, charges[lot.id])
    end
  end
  return writes, table.concat(postings, ' '), due, remaining_of(lots)
end

-- end_hold(call id, text of a live hold, microcredits owed, result, mark, epoch, seq, now_ms,
-- closed, absent): ends the hold, writes the outbox entry, replies. The mark is 's', or 'x' for a
-- hold that has run out. With `absent` there is no such hold in the shard: its text only tells
-- whose call it was. KEYS are those of settle.lua.
local function end_hold(call_id, text, owed, result, mark, epoch, seq, now_ms, closed, absent)
  local call, format = redis.call, string.format
  local account_id, admitted_ms, held, _, _, counted, allocation, context =
    string.match(text, HOLD)
  assert(account_id == string.match(KEYS[2], ':a:(.+)'), 'the hold is of another account')
  local account = call('HMGET', KEYS[2], 'running', 'lots')
  if not account[2] then return {'GONE', epoch, seq} end
  local writes, postings, uncollected, remaining =
    charge_lots(KEYS[2], account[2], allocation, owed, now_ms)
  local charged = owed - uncollected

  -- ZREM first: it is never refused for lack of memory, and Redis lets a script that has written go
  -- on at maxmemory, so that settling works there.
  call('ZREM', KEYS[4], call_id)
  if counted ~= '' then uncount(KEYS[2], KEYS[6], counted, charged - tonumber(held), writes) end
  local running = absent and account[1] or running_less(account[1], counted)
  call('HSET', KEYS[2], 'running', running, unpack(writes))
  local outbox_id = call('XADD', KEYS[5], '*', 'v', format('%s|%s|%s|%s|%d|%d|%d|%s|%s', call_id,
    context, held, admitted_ms, now_ms, charged, uncollected, postings, result))
  call('HSET', KEYS[3], call_id, mark .. '|' .. outbox_id)
  return {'OK', epoch, next_seq(KEYS[1], seq, closed), charged, uncollected, remaining, postings,
    outbox_id, now_ms, tonumber(admitted_ms)}
end

-- undo_hold(call id, text of a live hold, session key or nil, now_ms): gives everything back;
-- remaining, or nil when the account is gone. KEYS 2 to 4 are account, holds and leases.
local function undo_hold(call_id, text, session_key, now_ms)
  local call, format = redis.call, string.format
  local account_id, _, held, _, _, counted, allocation = string.match(text, HOLD)
  assert(account_id == string.match(KEYS[2], ':a:(.+)'), 'the hold is of another account')
  local account = call('HMGET', KEYS[2], 'running', 'lots')
  if not account[2] then return nil end
  local lots, by_id = read_lots(KEYS[2], account[2], allocation, now_ms)
  local writes = {'running', running_less(account[1], counted)}
  for id, part in string.gmatch(allocation, '(%d+)o?:(%d+)') do
    local lot = by_id[id]
    if lot then
      part = math.min(tonumber(part), lot.held) -- see charge_lots
      lot.available, lot.held = lot.available + part, lot.held - part
      local w = #writes
      writes[w + 1], writes[w + 2] = 'a:' .. id, format('%d', lot.available)
      writes[w + 3], writes[w + 4] = 'h:' .. id, format('%d', lot.held)
    end
  end
  call('ZREM', KEYS[4], call_id) -- first: see end_hold
  if counted ~= '' then uncount(KEYS[2], session_key, counted, -tonumber(held), writes) end
  call('HSET', KEYS[2], unpack(writes))
  call('HDEL', KEYS[3], call_id)
  return remaining_of(lots)
end
