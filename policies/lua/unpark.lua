-- needs:
--
-- Forget which hold a task had, because that is settled.
--
-- KEYS  1 record of the task
-- ARGV  1 call id
-- Result {'OK', 0, 0}. A record of another call, which began since, is left alone: it looks at no
-- epoch, for what is settled stays so. Repeating it does no harm.
--
-- Example: EVALSHA ... 1 tk:{s012}:t:7:5f0e 0190...ab   -> {'OK', 0, 0}
assert(#KEYS == 1 and #ARGV == 1, 'unpark takes 1 KEYS and 1 ARGV')
local record = redis.call('GET', KEYS[1])
if record and string.match(record, '^(%x+) ') == ARGV[1] then redis.call('UNLINK', KEYS[1]) end
return {'OK', 0, 0}
