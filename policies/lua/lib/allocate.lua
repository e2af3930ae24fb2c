-- allocate(account key, burn-down order, amount, now_ms): takes an amount from the lots that are
-- valid now, in order: the general case of admit.lua. Returns available (with the room that is left
-- in overage), held, remaining (what is used of overage counts against it); and, meant only if
-- available covers the amount, the allocation and the fields to write.
local function allocate(account_key, order, amount, now_ms)
  local call, format, tonumber = redis.call, string.format, tonumber
  local overage = string.find(order, 'o', 1, true)
  local tokens, fields = {}, {}
  for token in string.gmatch(order, '%S+') do
    local id, n = overage and string.match(token, '%d+') or token, #fields
    tokens[#tokens + 1] = token
    fields[n + 1], fields[n + 2], fields[n + 3], fields[n + 4] =
      'a:' .. id, 'h:' .. id, 'e:' .. id, 'f:' .. id
  end
  local values = call('HMGET', account_key, unpack(fields))
  local available, held, debited, missing, parts, writes = 0, 0, 0, amount, {}, {}
  for i = 1, #tokens do
    local token, n = tokens[i], 4 * i - 3
    local expires_ms = tonumber(values[n + 2])
    if tonumber(values[n + 3]) <= now_ms and (expires_ms == 0 or now_ms < expires_ms) then
      local lot_available, lot_held = tonumber(values[n]), tonumber(values[n + 1])
      available, held = available + lot_available, held + lot_held
      if overage and string.sub(token, -1) == 'o' then
        local id = string.match(token, '%d+')
        local used = call('HMGET', account_key, 's:' .. id, 'w:' .. id)
        debited = debited + lot_available + lot_held + used[1] + used[2]
      end
      local part = lot_available < missing and lot_available or missing
      if part > 0 then
        missing = missing - part
        parts[#parts + 1] = format('%s:%d', token, part)
        local w = #writes
        writes[w + 1], writes[w + 2] = fields[n], format('%d', lot_available - part)
        writes[w + 3], writes[w + 4] = fields[n + 1], format('%d', lot_held + part)
      end
    end
  end
  return available, held, available - debited, table.concat(parts, ' '), writes
end
