-- needs:
--
-- One atomic look at an account, for the audit. Reads all holds of the shard: not for the hot path.
--
-- KEYS  1 account
--       2 shard holds
--       3 shard meta
-- ARGV  none
-- Result: {epoch, seq (0, 0: the shard is empty), {field, value, ...} of the account,
--          {call id, text, ...} of its live holds}
--
-- Example: EVALSHA ... 3 tk:{s012}:a:7 tk:{s012}:holds tk:{s012}:meta
--   -> {3, 45, {'epoch', '3', 'a:12', '997500000', ...},
--       {'0190...ab', 'h|7|1790000000123|2500000|100000|||12:2500000|1,7,5,2,9,'}}
assert(#KEYS == 3 and #ARGV == 0, 'inspect takes 3 KEYS and no ARGV')
local call = redis.call
local meta = call('HMGET', KEYS[3], 'epoch', 'seq')
local prefix = 'h|' .. string.match(KEYS[1], ':a:(.+)') .. '|'
local texts, holds = call('HGETALL', KEYS[2]), {}
for i = 1, #texts, 2 do
  if string.sub(texts[i + 1], 1, #prefix) == prefix then
    holds[#holds + 1], holds[#holds + 2] = texts[i], texts[i + 1]
  end
end
return {tonumber(meta[1]) or 0, tonumber(meta[2]) or 0, call('HGETALL', KEYS[1]), holds}
