-- lineage_of(account key, key id, rules of the key, now_ms): the keys that a delegated key was
-- carved from, nearest first, as {scope, rules, scope, rules, ...} of what they ask of its calls,
-- too. Not their caps in total: from those its budget was taken when it was carved.
-- Returns a status, nil if every one of them may make calls, and the list. KEY: one is revoked or
-- expired, or was never carved, or has given back what it had left. LOAD: one is not here.
local function lineage_of(account_key, key_id, rules, now_ms)
  local lineage = {}
  local parent = string.match(rules, 'up:(%d+)')
  while parent do
    if #lineage == 8 then return 'KEY' end -- DELEGATION_DEPTH_MAX, and two entries each
    local kept = redis.call('HMGET', account_key, 'k:' .. parent, 'p:' .. key_id)
    if not string.find(kept[2] or '', '^%d+:%d+$') then return 'KEY' end
    if not kept[1] then return 'LOAD' end
    local expires_ms
    expires_ms, rules = string.match(kept[1], '^(-?%d+) ?(.*)$')
    expires_ms = tonumber(expires_ms)
    if expires_ms ~= 0 and expires_ms <= now_ms then return 'KEY' end
    lineage[#lineage + 1] = 'K' .. parent
    lineage[#lineage + 1] = string.gsub(rules, 'ct:%d+', '')
    key_id, parent = parent, string.match(rules, 'up:(%d+)')
  end
  return nil, lineage
end
