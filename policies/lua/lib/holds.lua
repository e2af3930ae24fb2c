-- settled_reply(text, epoch, seq): the reply of a settle that has happened before, from
-- 's|charged|uncollected|remaining|postings|outbox id|now_ms|admitted_ms'.
local function settled_reply(text, epoch, seq)
  local charged, uncollected, remaining, postings, outbox_id, now_ms, admitted_ms =
    string.match(text, '^s|(%d+)|(%d+)|(%d+)|([^|]*)|([^|]*)|(%d+)|(%d+)$')
  return {'OK', epoch, seq, tonumber(charged), tonumber(uncollected), tonumber(remaining), postings,
    outbox_id, tonumber(now_ms), tonumber(admitted_ms)}
end

-- charge_lots(account key, burn-down order, allocation, owed, now_ms): the general case. Takes what
-- is owed from the hold's own lots in order and gives the rest of each back to its lot, expired or
-- not; what is owed beyond the hold comes from valid lots in burn-down order, as far as it goes.
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
  for id, part in string.gmatch(allocation, '(%d+):(%d+)') do
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
      postings[#postings + 1] = format('%s:%d', lot.id, charges[lot.id])
    end
  end
  return writes, table.concat(postings, ' '), due, remaining_of(lots)
end

-- settle_hold(call id, text of a live hold, microcredits owed, result, epoch, seq, now_ms): ends
-- the hold, writes the outbox entry, replies. KEYS are those of settle.lua and expire.lua.
local function settle_hold(call_id, text, owed, result, epoch, seq, now_ms)
  local call, format = redis.call, string.format
  local account_id, admitted_ms, held, allocation, context =
    string.match(text, '^h|(%d+)|(%d+)|(%d+)|%d+|([^|]*)|(.*)$')
  assert(account_id == string.match(KEYS[2], ':a:(.+)'), 'the hold is of another account')
  local id, part = string.match(allocation, '^(%d+):(%d+)$')
  id = id or '' -- of several lots or none
  local available_field, held_field, settled_field = 'a:' .. id, 'h:' .. id, 's:' .. id
  local account = call('HMGET', KEYS[2], 'running', 'lots', available_field, held_field,
    settled_field, 'e:' .. id, 'f:' .. id)
  if not account[2] then return {'GONE', epoch, seq} end

  local writes, postings, uncollected, remaining
  part = tonumber(part)
  if part and account[3] and owed <= part and part <= tonumber(account[4]) then
    -- One lot, which covers it: the common case, and half the work.
    local available = tonumber(account[3]) + part - owed
    writes = {
      available_field, format('%d', available), held_field, format('%d', account[4] - part),
      settled_field, format('%d', account[5] + owed),
    }
    postings, uncollected = owed > 0 and format('%s:%d', id, owed) or '', 0
    if account[2] == id then
      local expires_ms = tonumber(account[6])
      local spendable = tonumber(account[7]) <= now_ms and (expires_ms == 0 or now_ms < expires_ms)
      remaining = spendable and available or 0
    else
      remaining = remaining_with(KEYS[2], account[2], now_ms, id, available)
    end
  else
    writes, postings, uncollected, remaining =
      charge_lots(KEYS[2], account[2], allocation, owed, now_ms)
  end
  local charged_text, uncollected_text = format('%d', owed - uncollected), format('%d', uncollected)
  local now_text = format('%d', now_ms)

  -- ZREM first: it is never refused for lack of memory, and Redis lets a script that has written go
  -- on at maxmemory, so that settling works there.
  call('ZREM', KEYS[4], call_id)
  call('HSET', KEYS[2], 'running', format('%d', math.max(account[1] - 1, 0)), unpack(writes))
  local outbox_id = call('XADD', KEYS[5], '*', 'i', call_id, 'x', context, 'm', held,
    't', admitted_ms, 'n', now_text, 'c', charged_text, 'u', uncollected_text, 'p', postings,
    'r', result)
  call('HSET', KEYS[3], call_id, format('s|%s|%s|%d|%s|%s|%s|%s', charged_text, uncollected_text,
    remaining, postings, outbox_id, now_text, admitted_ms))
  seq = seq + 1
  call('HSET', KEYS[1], 'seq', format('%d', seq))
  return {'OK', epoch, seq, owed - uncollected, uncollected, remaining, postings, outbox_id, now_ms,
    tonumber(admitted_ms)}
end
