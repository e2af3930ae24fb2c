-- shares_of(field, value pairs): how delegated keys count in those that they were carved from, by
-- the latter's id: {['5'] = {['19'] = microcredits}}.
local function shares_of(fields)
  local by_parent = {}
  for i = 1, #fields, 2 do
    local key_id = string.match(fields[i], '^p:(%d+)$')
    if key_id then
      local parent, budget, used = string.match(fields[i + 1], '^(%d+):(%d+):?(%d*)$')
      by_parent[parent] = by_parent[parent] or {}
      by_parent[parent][key_id] = tonumber(used ~= '' and used or budget)
    end
  end
  return by_parent
end

-- begin_total(key id, told, here, given): what the counter of a key's cap in total begins with.
-- `given` has it by field as Postgres says, with the whole budgets of the keys in `told`. But the
-- shares that count are those `here`, in Redis: keys may have been carved since or not be carved
-- yet, and some have given back. A key that is told and not here counts with what it used: nothing
-- if it was not carved, and all that there is of it if it is forgotten.
local function begin_total(key_id, told, here, given)
  local function used_of(id)
    return tonumber(string.match(given['K' .. id .. '.ct'] or '', '^0:(%d+)$') or 0)
  end
  local used = used_of(key_id)
  for id, share in pairs(told or {}) do
    used = used - share
    if not (here and here[id]) then used = used + used_of(id) end
  end
  for _, share in pairs(here or {}) do used = used + share end
  return string.format('0:%d', math.max(used, 0))
end
