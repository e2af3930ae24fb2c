-- read_lots(account key, burn-down order, allocation of a hold, now_ms): the account's lots in
-- burn-down order, each {id, available, held, settled, spendable}; and by grant id, these and the
-- ones that only the hold names. A grant that the account does not know (any more) is left out.
local function read_lots(account_key, order, allocation, now_ms)
  local ids, fields, known = {}, {}, {}
  local function want(id)
    if known[id] then return end
    known[id] = true
    ids[#ids + 1] = id
    local n = #fields
    fields[n + 1], fields[n + 2], fields[n + 3], fields[n + 4], fields[n + 5] =
      'a:' .. id, 'h:' .. id, 's:' .. id, 'e:' .. id, 'f:' .. id
  end
  for id in string.gmatch(order, '%d+') do want(id) end
  local ordered = #ids
  for id in string.gmatch(allocation, '(%d+):') do want(id) end
  local lots, by_id = {}, {}
  if #ids == 0 then return lots, by_id end
  local values = redis.call('HMGET', account_key, unpack(fields))
  for i, id in ipairs(ids) do
    local n = 5 * i - 5
    if values[n + 1] then
      local expires_ms = tonumber(values[n + 4])
      local lot = {
        id = id,
        available = tonumber(values[n + 1]),
        held = tonumber(values[n + 2]),
        settled = tonumber(values[n + 3]),
        spendable = tonumber(values[n + 5]) <= now_ms
          and (expires_ms == 0 or now_ms < expires_ms),
      }
      by_id[id] = lot
      if i <= ordered then lots[#lots + 1] = lot end
    end
  end
  return lots, by_id
end

-- remaining_with(account key, burn-down order, now_ms, grant id, available): what a new call could
-- take once this grant has so much available. Half the work of reading the lots.
local function remaining_with(account_key, order, now_ms, grant_id, available)
  local fields = {}
  for id in string.gmatch(order, '%d+') do
    local n = #fields
    fields[n + 1], fields[n + 2], fields[n + 3] = 'a:' .. id, 'e:' .. id, 'f:' .. id
  end
  local own, remaining = 'a:' .. grant_id, 0
  local values = #fields > 0 and redis.call('HMGET', account_key, unpack(fields)) or {}
  for n = 1, #fields, 3 do
    local expires_ms = tonumber(values[n + 1])
    if tonumber(values[n + 2]) <= now_ms and (expires_ms == 0 or now_ms < expires_ms) then
      remaining = remaining + (fields[n] == own and available or tonumber(values[n]))
    end
  end
  return remaining
end

-- remaining_of(lots): microcredits that a new call could take now.
local function remaining_of(lots)
  local remaining = 0
  for _, lot in ipairs(lots) do
    if lot.spendable then remaining = remaining + lot.available end
  end
  return remaining
end
