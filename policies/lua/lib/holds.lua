-- settled_reply(text, epoch, seq): the reply of a settle that has happened before, from the settled hold's text
-- 's|charged|uncollected|remaining|postings|outbox id|now_ms|admitted_ms'.
local function settled_reply(text, epoch, seq)
  local charged, uncollected, remaining, postings, outbox_id, now_ms, admitted_ms =
    string.match(text, '^s|(%d+)|(%d+)|(%d+)|([^|]*)|([^|]*)|(%d+)|(%d+)$')
  return {'OK', epoch, seq, tonumber(charged), tonumber(uncollected), tonumber(remaining), postings, outbox_id,
    tonumber(now_ms), tonumber(admitted_ms)}
end

-- settle_hold(call id, text of a live hold, microcredits owed, result, epoch, seq, now_ms): ends the hold, writes the
-- outbox entry, and replies. It takes what is owed from the hold's own lots in order and returns the rest of each to
-- its lot, expired or not; what is owed beyond the hold comes from valid lots in burn-down order, as far as it goes.
-- KEYS are those of settle.lua and expire.lua. An account that is gone answers GONE.
local function settle_hold(call_id, text, owed, result, epoch, seq, now_ms)
  local account_id, admitted_ms, held, allocation, context =
    string.match(text, '^h|(%d+)|(%d+)|(%d+)|%d+|([^|]*)|(.*)$')
  assert(account_id == string.match(KEYS[2], ':a:(%d+)$'), 'the hold is of another account')
  local call = redis.call
  local account = call('HMGET', KEYS[2], 'running', 'lots')
  if not account[2] then return {'GONE', epoch, seq} end
  local lots, by_id = read_lots(KEYS[2], account[2], allocation, now_ms)

  -- A hold can be larger than what its lot holds only after the account was deleted and loaded again in between; it
  -- then gives back no more than is there.
  local due, charges, charged_lots = owed, {}, {}
  local function take(lot, microcredits)
    if not charges[lot] then
      charges[lot] = 0
      charged_lots[#charged_lots + 1] = lot
    end
    charges[lot] = charges[lot] + microcredits
    lot.settled = lot.settled + microcredits
    due = due - microcredits
  end
  local touched = {}
  for id, part in string.gmatch(allocation, '(%d+):(%d+)') do
    local lot = by_id[id]
    if lot then
      part = math.min(tonumber(part), lot.held)
      local charge = math.min(part, due)
      lot.held, lot.available = lot.held - part, lot.available + part - charge
      if charge > 0 then take(lot, charge) end
      touched[#touched + 1] = lot
    end
  end
  if due > 0 then
    for _, lot in ipairs(lots) do
      local charge = lot.spendable and math.min(lot.available, due) or 0
      if charge > 0 then
        lot.available = lot.available - charge
        take(lot, charge)
        touched[#touched + 1] = lot
      end
    end
  end

  local writes, postings = {'running', math.max(tonumber(account[1]) - 1, 0)}, {}
  for _, lot in ipairs(touched) do
    local w = #writes
    writes[w + 1], writes[w + 2] = 'a:' .. lot.id, lot.available
    writes[w + 3], writes[w + 4] = 'h:' .. lot.id, lot.held
    writes[w + 5], writes[w + 6] = 's:' .. lot.id, lot.settled
  end
  for i, lot in ipairs(charged_lots) do postings[i] = string.format('%s:%d', lot.id, charges[lot]) end
  local charged, posted, remaining = owed - due, table.concat(postings, ' '), remaining_of(lots)

  -- ZREM first: it is never refused for lack of memory, and a script that has written is let through from then on,
  -- so that settling works at maxmemory.
  call('ZREM', KEYS[4], call_id)
  call('HSET', KEYS[2], unpack(writes))
  local outbox_id = call('XADD', KEYS[5], '*', 'i', call_id, 'x', context, 'm', held, 't', admitted_ms, 'n', now_ms,
    'c', charged, 'u', due, 'p', posted, 'r', result)
  call('HSET', KEYS[3], call_id, string.format('s|%d|%d|%d|%s|%s|%d|%s', charged, due, remaining, posted, outbox_id,
    now_ms, admitted_ms))
  call('HSET', KEYS[1], 'seq', seq + 1)
  return {'OK', epoch, seq + 1, charged, due, remaining, posted, outbox_id, now_ms, tonumber(admitted_ms)}
end
