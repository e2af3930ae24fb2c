-- is_counter(field): whether a field of an account counts calls or spending for a scope and kind of
-- its rules, as in 'K5.cd', or units for graduated tiers of a route, as in 'u:2:token'.
local function is_counter(field)
  return string.find(field, '^[AKR]%d*%.%l%l$') ~= nil
    or string.find(field, '^u:%d+:[%l%d_]+$') ~= nil
end

-- check_fact(field, value): an account's status, limits, rules, keys and counters are as they are
-- written; a mistake here would deny or let pass calls later.
local function check_fact(field, value)
  if field == 'status' then
    assert(value == 'active' or value == 'suspended', 'no such status')
  elseif field == 'rpm' or field == 'rpmonth' or field == 'conc' then
    whole(value)
  elseif field == 'rules' then
    assert(value and not string.find(value, '[^%l%d: ]'), 'these are no rules')
  elseif string.find(field, '^k:%d+$') then
    local state, rules = string.match(value, '^(%-?%d+) ?([%l%d: ]*)$')
    assert(state and rules, 'this is no state of a key')
    if state ~= '-1' then whole(state) end
  else
    assert(is_counter(field), 'an account has no such field')
    assert(string.find(value, '^%d+$') or string.find(value, '^%d+:%d+$'), 'this is no count')
  end
end
