-- Graduated tiers: a field 'u:<route id>:<unit>' of the account, '<window end ms>:<units>', counts
-- the units that it has used on a route in this billing period.

-- take_steps(account key, text of steps, now_ms, epoch, seq): whether every step begins where it
-- was assumed to. Returns the reply that says where each does begin, if not; or nil and the field,
-- value pairs which move the account on.
local function take_steps(account_key, text, now_ms, epoch, seq)
  local format = string.format
  local fields, steps = {'rules'}, {}
  for item in string.gmatch(text, '%S+') do
    local field, least, most, units = string.match(item, '^(%d+:[%l%d_]+):(%d+):(%d+):(%d+)$')
    assert(field, 'this is no step')
    fields[#fields + 1] = 'u:' .. field
    steps[#steps + 1] = {whole(least), whole(most), whole(units)}
  end
  local values = redis.call('HMGET', account_key, unpack(fields))
  local end_ms, next_end_ms = string.match(values[1] or '', 'pw:(%d+):?(%d*)')
  local window_end = format('%d', billing_end_ms(now_ms, tonumber(end_ms), tonumber(next_end_ms)))
  local moved, writes, met = {'MOVED', epoch, seq}, {}, true
  for i, step in ipairs(steps) do
    local kept_end, used = string.match(values[i + 1] or '', '^(%d+):(%d+)$')
    local position = kept_end == window_end and tonumber(used) or 0
    if position < step[1] or step[2] < position then met = false end
    moved[i + 3] = position
    writes[2 * i - 1] = fields[i + 1]
    writes[2 * i] = format('%s:%d', window_end, math.min(position + step[3], 9007199254740991))
  end
  if not met then return moved end
  return nil, writes
end
