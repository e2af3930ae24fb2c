-- A shard and some of its accounts at one instant, for the audit. Read only. Unlike inspect.lua it
-- also shows what is settled and on its way to Postgres, without which Redis and Postgres can't be
-- compared while calls run.
--
-- KEYS  1 shard meta
--       2 shard holds
--       3 shard leases
--       4 shard outbox
--       5 ... accounts
-- ARGV  1 how many holds, leases or outbox entries at most: Redis serves nobody else meanwhile
-- Result, one of
--   {'TOO_LARGE', holds, leases, outbox entries}
--   {'OK', epoch (0: the shard is empty), seq (-1: it is closed), now_ms,
--     {call or change id, text, ...} of the holds, {call id, 2 * deadline_ms + stage, ...},
--     {{outbox id, {field, value, ...}}, ...}, {{field, value, ...} of each account}}
--
-- Example: EVAL ... 5 tk:{s012}:meta tk:{s012}:holds tk:{s012}:leases tk:{s012}:outbox
--            tk:{s012}:a:7 100000
--       -> {'OK', 3, 45, 1790000000123, {'0190...ab', 'h|7|...'}, {'0190...ab', '3580000120247'},
--            {}, {{'epoch', '3', ...}}}
assert(#KEYS >= 4 and #ARGV == 1, 'picture takes 4 or more KEYS and 1 ARGV')
local call, most = redis.call, tonumber(ARGV[1])
local sizes = {call('HLEN', KEYS[2]), call('ZCARD', KEYS[3]), call('XLEN', KEYS[4])}
for _, size in ipairs(sizes) do
  if size > most then return {'TOO_LARGE', sizes[1], sizes[2], sizes[3]} end
end
local time, accounts = call('TIME'), {}
for i = 5, #KEYS do accounts[i - 4] = call('HGETALL', KEYS[i]) end
local meta = call('HMGET', KEYS[1], 'epoch', 'seq')
local epoch, seq = tonumber(meta[1]) or 0, tonumber(meta[2]) or -1
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
return {'OK', epoch, seq, now_ms, call('HGETALL', KEYS[2]),
  call('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES'), call('XRANGE', KEYS[4], '-', '+'), accounts}
