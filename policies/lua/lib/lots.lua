-- read_lots(account key, burn-down order, allocation of a hold, now_ms): the account's lots in
-- burn-down order, each {id, token, available, held, settled, withdrawn, overage, spendable}; and
-- by grant id, these and the ones that only the hold names. A grant that the account does not know
-- (any more) is left out. A token is the id as texts carry it, '99o' for a lot of overage.
local function read_lots(account_key, order, allocation, now_ms)
  local tokens, fields, known = {}, {}, {}
  local function want(id, suffix)
    if known[id] then return end
    known[id] = true
    tokens[#tokens + 1] = id .. suffix
    local n = #fields
    fields[n + 1], fields[n + 2], fields[n + 3] = 'a:' .. id, 'h:' .. id, 's:' .. id
    fields[n + 4], fields[n + 5], fields[n + 6] = 'e:' .. id, 'f:' .. id, 'w:' .. id
  end
  for id, suffix in string.gmatch(order, '(%d+)(o?)') do want(id, suffix) end
  local ordered = #tokens
  for id, suffix in string.gmatch(allocation, '(%d+)(o?):') do want(id, suffix) end
  local lots, by_id = {}, {}
  if #tokens == 0 then return lots, by_id end
  local values = redis.call('HMGET', account_key, unpack(fields))
  for i, token in ipairs(tokens) do
    local n = 6 * i - 6
    if values[n + 1] then
      local expires_ms = tonumber(values[n + 4])
      local lot = {
        id = string.match(token, '%d+'),
        token = token,
        available = tonumber(values[n + 1]),
        held = tonumber(values[n + 2]),
        settled = tonumber(values[n + 3]),
        withdrawn = tonumber(values[n + 6]),
        overage = string.sub(token, -1) == 'o',
        spendable = tonumber(values[n + 5]) <= now_ms
          and (expires_ms == 0 or now_ms < expires_ms),
      }
      by_id[lot.id] = lot
      if i <= ordered then lots[#lots + 1] = lot end
    end
  end
  return lots, by_id
end

-- remaining_of(lots): microcredits that a new call could take now; what was used of overage counts
-- against it, so that it is negative where only overage pays.
local function remaining_of(lots)
  local remaining = 0
  for _, lot in ipairs(lots) do
    if lot.spendable then
      remaining = remaining
        + (lot.overage and -(lot.held + lot.settled + lot.withdrawn) or lot.available)
    end
  end
  return remaining
end
