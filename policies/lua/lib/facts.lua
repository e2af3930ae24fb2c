-- is_counter(field): whether a field of an account counts calls or spending for a scope and kind of
-- its rules, as in 'K5.cd', or units for graduated tiers of a route, as in 'u:2:token'.
local function is_counter(field)
  return string.find(field, '^[AKR]%d*%.%l%l$') ~= nil
    or string.find(field, '^u:%d+:[%l%d_]+$') ~= nil
end

-- is_share(field, value): whether it says that a delegated key counts in its parent (carve.lua).
local function is_share(field, value)
  if not string.find(field, '^p:%d+$') then return false end
  local budget = string.match(value, '^%d+:(%d+)$')
  assert(budget and whole(budget) > 0, 'this is no share of a key')
  return true
end

-- check_rules_text(rules, of_key): every item is a rule; the ones that only keys have are theirs.
local function check_rules_text(rules, of_key)
  for item in string.gmatch(rules, '%S+') do
    local kind = string.match(item, '^(%l%l):%d+$') or string.match(item, '^(%l%l):%d+:%d+$')
    assert(kind and (of_key or kind ~= 'up' and kind ~= 'gv'), 'these are no rules')
  end
end

-- check_fact(field, value): an account's status, limits, rules, keys and counters are as they are
-- written; a mistake here would deny or let pass calls later.
local function check_fact(field, value)
  if field == 'status' then
    assert(value == 'active' or value == 'suspended', 'no such status')
  elseif field == 'rpm' or field == 'rpmonth' or field == 'conc' then
    whole(value)
  elseif field == 'rules' then
    assert(value, 'these are no rules')
    check_rules_text(value, false)
  elseif string.find(field, '^k:%d+$') then
    local state, rules = string.match(value, '^(%-?%d+) ?(.*)$')
    assert(state, 'this is no state of a key')
    check_rules_text(rules, true)
    if state ~= '-1' then whole(state) end
  else
    assert(is_counter(field), 'an account has no such field')
    assert(string.find(value, '^%d+$') or string.find(value, '^%d+:%d+$'), 'this is no count')
  end
end
