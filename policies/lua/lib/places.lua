-- places_of(account key, session key or nil, counted, held, scopes, now_ms): where a running call's
-- spending is counted and will be once it is raised. `counted` is that of its hold (lib/rules.lua),
-- `scopes` the rules by scope, as far as they are known.
-- Returns a list of {token: for the raised hold's counted; field of the account, or session scope;
-- end_ms: of the window that is now, 0 without; spent: in it; others: the same without this call;
-- limit: what the rules say by now, none: math.huge; source, window: of a refusal}. A place without
-- `others` counts calls, not credits. A window that is no longer the one that the call was counted
-- in, and one that is gone, have counted nothing of it.
local function places_of(account_key, session_key, counted, held, scopes, now_ms)
  local call, format = redis.call, string.format
  local sources = {A = 'account', K = 'key', R = 'route'}
  local windows = {cd = 'day', cm = 'month', ct = 'total'}
  local function limit_of(scope, kind)
    local limit = tonumber(string.match(scopes[scope] or '', kind .. ':(%d+)') or 0)
    return limit > 0 and limit or math.huge
  end

  local places = {}
  for token in string.gmatch(counted, '%S+') do
    local place = {token = token}
    local scope, kind, window_end = string.match(token, '^(%u%d*)%.(%w+)@?(%d*)$')
    if scope == 'S' then
      assert(session_key, 'the call is counted in its session')
      local kept = call('HGET', session_key, kind)
      place.session, place.end_ms, place.spent = kind, 0, tonumber(kept or 0)
      place.others = kept and math.max(place.spent - held, 0) or 0
      place.source, place.window, place.limit = 'session', 'session', limit_of(kind, 'cs')
    elseif window_end and window_end ~= '' then
      local end_ms = 0
      if kind == 'cd' then end_ms = now_ms - now_ms % 86400000 + 86400000 end
      if kind == 'cm' then end_ms = month_end_ms(now_ms) end
      local field, limit = scope .. '.' .. kind, limit_of(scope, kind)
      local kept = call('HGET', account_key, field)
      -- A cap in total of the account or a key that is no more: see amend.lua.
      if kept or kind ~= 'ct' or limit < math.huge or string.sub(scope, 1, 1) == 'R' then
        local kept_end, spent = string.match(kept or '', '^(%d+):(%d+)$')
        place.field, place.end_ms = field, end_ms
        place.spent = tonumber(kept_end) == end_ms and tonumber(spent) or 0
        local within = tonumber(window_end) == end_ms
        place.others = within and math.max(place.spent - held, 0) or place.spent
        place.token = format('%s@%d', field, end_ms)
        place.source = sources[string.sub(scope, 1, 1)]
        place.window, place.limit = windows[kind], limit
      end
    end
    places[#places + 1] = place
  end
  return places
end
