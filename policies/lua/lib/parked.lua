-- A hold that was parked for a task does not count as a running call: a task may wait for a client
-- for hours, and the very calls that would end it must not be refused for it. Its counted says P.

-- leave_running(account key, holds key, call id, text of a live hold): takes a hold out of the
-- counts of running calls, once; its text afterwards.
local function leave_running(account_key, holds_key, call_id, text)
  local head, counted, rest = string.match(text, '^(h|%d+|%d+|%d+|%d+|[^|]*|)([^|]*)(|.*)$')
  if string.find(counted, 'P', 1, true) then return text end
  local call, format = redis.call, string.format
  local kept, fields = {'P'}, {'running'}
  for token in string.gmatch(counted, '%S+') do
    -- Caps have a window's end and sessions are caps: what is left are counts of running calls.
    if string.find(token, '@', 1, true) or string.sub(token, 1, 2) == 'S.' then
      kept[#kept + 1] = token
    else
      fields[#fields + 1] = token
    end
  end
  local values, writes = call('HMGET', account_key, unpack(fields)), {}
  for i, field in ipairs(fields) do
    if values[i] then
      writes[#writes + 1], writes[#writes + 2] = field, format('%d', math.max(values[i] - 1, 0))
    end
  end
  if #writes > 0 then call('HSET', account_key, unpack(writes)) end
  text = head .. table.concat(kept, ' ') .. rest
  call('HSET', holds_key, call_id, text)
  return text
end
