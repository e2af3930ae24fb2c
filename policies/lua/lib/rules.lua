-- What lib/limits.lua has counted a call in, and how the call's end corrects that. `counted` of a
-- hold names the counters that it is in: 'K5.cd@<window end ms>' and 'A.ct@0' (caps: what was spent
-- or is held), 'K5.cc' (running calls), 'S.A' and 'S.K5' (caps of its session).

-- uncount(account key, session key or nil, counted, delta, writes): takes a call that ends out of
-- what it was counted in. delta is what it was charged less what it held, so 0 or below but for a
-- call that cost more. Appends field, value pairs of the account to `writes`; writes the session
-- itself, so call it after ZREM, the write that maxmemory does not refuse.
-- A window that has passed and a counter or session that is gone are left alone.
local function uncount(account_key, session_key, counted, delta, writes)
  if counted == '' then return end
  local call, format = redis.call, string.format
  local tokens, fields = {}, {}
  for scope, kind, window_end in string.gmatch(counted, '(%u%d*)%.(%w+)@?(%d*)') do
    if scope ~= 'S' then
      tokens[#tokens + 1] = window_end
      fields[#fields + 1] = scope .. '.' .. kind
    elseif session_key then
      local spent = call('HGET', session_key, kind)
      if spent then
        call('HSET', session_key, kind, format('%d', math.max(spent + delta, 0)))
      end
    end
  end
  if #fields == 0 then return end
  local kept = call('HMGET', account_key, unpack(fields))
  for i, window_end in ipairs(tokens) do
    local value
    if not kept[i] then
      value = nil
    elseif window_end == '' then
      value = format('%d', math.max(kept[i] - 1, 0))
    else
      local kept_end, spent = string.match(kept[i], '^(%d+):(%d+)$')
      if kept_end == window_end then
        value = format('%s:%d', kept_end, math.max(spent + delta, 0))
      end
    end
    if value then writes[#writes + 1], writes[#writes + 2] = fields[i], value end
  end
end
