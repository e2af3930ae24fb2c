-- needs:
--
-- Give an idempotency key back that a call has claimed and left no answer for: a retry may run.
--
-- KEYS  1 record of the key (hash)
-- ARGV  1 call id
-- Result {status, 0, 0}: it looks at no epoch.
--   OK         the key is free
--   KEPT       it is another call's, or this one has been answered, or nobody's: nothing happened
-- Works at maxmemory, and repeating it does no harm.
--
-- Example: EVALSHA ... 1 tk:{s012}:i:7:9f86...08 0190...ab   -> {'OK', 0, 0}
assert(#KEYS == 1 and #ARGV == 1, 'forget takes 1 KEYS and 1 ARGV')
local record = redis.call('HMGET', KEYS[1], 'call', 'done')
if record[1] ~= ARGV[1] or record[2] then return {'KEPT', 0, 0} end
redis.call('UNLINK', KEYS[1])
return {'OK', 0, 0}
