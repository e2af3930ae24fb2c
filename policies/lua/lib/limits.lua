-- check_rules(account key, session key or nil, {scope, rules, scope, rules, ...}, amount, now_us,
-- epoch, seq): asks the limits and caps beyond an account's fast fields for one call. Their grammar
-- and the same decisions in Python: policies/limits.py.
-- Returns the reply of the first that refuses; or nil and what to do if the call is admitted:
-- {counted, account: field, value pairs to write, session: the same for its hash, rpm_limit,
-- rpm_remaining: of the rate per minute with the fewest calls left, if there is one}.
local function check_rules(account_key, session_key, texts, amount, now_us, epoch, seq)
  local call, format = redis.call, string.format
  local now_ms = (now_us - now_us % 1000) / 1000
  local sources = {A = 'account', K = 'key', R = 'route'}
  local periods_us = {rs = 1000000, rm = 60000000}
  local windows = {cd = 'day', cm = 'month', ct = 'total'}
  local asked = {account = {}, session = {}}
  local period_ends, counted = {}, {}

  -- The generic cell rate algorithm; a tat beyond the burst means what it means in admit.lua.
  local function ask_rate(rule, kept)
    local period_us, limit = periods_us[rule.kind], rule.limit
    local interval_us = (period_us - 1 - (period_us - 1) % limit) / limit + 1
    local burst_us = interval_us * (rule.parameter or limit)
    local tat_us = tonumber(kept) or 0
    if tat_us < now_us or tat_us > now_us + burst_us then tat_us = now_us end
    tat_us = tat_us + interval_us
    local left_us = now_us + burst_us - tat_us
    if left_us < 0 then
      return {'RATE', epoch, seq, limit, math.ceil(-left_us / 1000), rule.source}
    end
    local remaining = (left_us - left_us % interval_us) / interval_us
    if rule.kind == 'rm' and remaining < (asked.rpm_remaining or math.huge) then
      asked.rpm_limit, asked.rpm_remaining = limit, remaining
    end
    return nil, format('%d', tat_us)
  end

  local function ask_concurrency(rule, kept)
    local running = tonumber(kept) or 0
    if running >= rule.limit then
      return {'CONCURRENCY', epoch, seq, rule.limit, rule.source}
    end
    counted[#counted + 1] = rule.field
    return nil, format('%d', running + 1)
  end

  local function cap_refusal(source, window, limit, spent, end_ms)
    if amount == 0 or amount <= limit - spent then return nil end
    local retry_after_ms = end_ms > 0 and amount <= limit and end_ms - now_ms or 0
    return {'CAP', epoch, seq, source, window, limit, spent, retry_after_ms}
  end

  local function ask_session(rule)
    local spent = tonumber(call('HGET', session_key, rule.scope)) or 0
    local refusal = cap_refusal('session', 'session', rule.limit, spent, 0)
    local n = #asked.session
    asked.session[n + 1], asked.session[n + 2] = rule.scope, format('%d', spent + amount)
    counted[#counted + 1] = 'S.' .. rule.scope
    return refusal
  end

  local function window_end_ms(kind)
    if kind == 'ct' then return 0 end
    if kind == 'cd' then return now_ms - now_ms % 86400000 + 86400000 end
    if kind == 'qp' then return billing_end_ms(now_ms, period_ends[1], period_ends[2]) end
    return month_end_ms(now_ms)
  end

  -- A quota or cap. Another end than the kept one is another window, with nothing used.
  local function ask_window(rule, kept)
    local end_ms = window_end_ms(rule.kind)
    local kept_end, used = string.match(kept or '', '^(%d+):(%d+)$')
    used = tonumber(kept_end) == end_ms and tonumber(used) or 0
    local window = windows[rule.kind]
    if not window then
      if used >= rule.limit then
        return {'QUOTA', epoch, seq, rule.limit, end_ms - now_ms, rule.source}
      end
      return nil, format('%d:%d', end_ms, used + 1)
    end
    counted[#counted + 1] = format('%s@%d', rule.field, end_ms)
    return cap_refusal(rule.source, window, rule.limit, used, end_ms),
      format('%d:%d', end_ms, used + amount)
  end

  local ask = {
    rs = ask_rate, rm = ask_rate, qm = ask_window, qp = ask_window, cc = ask_concurrency,
    cd = ask_window, cm = ask_window, ct = ask_window, cs = session_key and ask_session,
  }
  local rules, fields = {}, {}
  for t = 1, #texts, 2 do
    local scope = texts[t]
    for kind, limit, parameter in string.gmatch(texts[t + 1], '(%l%l):(%d+):?(%d*)') do
      limit, parameter = tonumber(limit), tonumber(parameter)
      if kind == 'pw' then period_ends = {limit, parameter} end
      if ask[kind] and limit > 0 then
        local field = scope .. '.' .. kind
        fields[#fields + 1] = field
        rules[#rules + 1] = {
          scope = scope, kind = kind, field = field, limit = limit, parameter = parameter,
          source = sources[string.sub(scope, 1, 1)],
        }
      end
    end
  end
  local values = #fields > 0 and call('HMGET', account_key, unpack(fields)) or {}
  local writes = asked.account
  for i, rule in ipairs(rules) do
    local refusal, value = ask[rule.kind](rule, values[i])
    if refusal then return refusal end
    if value then writes[#writes + 1], writes[#writes + 2] = rule.field, value end
  end
  asked.counted = table.concat(counted, ' ')
  return nil, asked
end
