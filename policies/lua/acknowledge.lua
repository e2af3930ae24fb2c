-- needs:
--
-- Forget what is in Postgres: entries of the outbox, and what a repeated script would reply of
-- their calls and changes.
--
-- KEYS  1 shard holds
--       2 shard outbox
-- ARGV  call or change ids, and then as many outbox ids, in the same order
-- Result {'OK', 0, 0}: it looks at no epoch, for what is in Postgres stays there.
-- What holds have of an id goes only with its own entry. Who was held up, or wrote what had been
-- carried already, may find something else there by now: a hold that was restored from an older
-- Redis, whose credits it alone can give back, or a change that has yet to be carried.
-- Works at maxmemory, and repeating it does no harm.
--
-- Example: EVALSHA ... 2 tk:{s012}:holds tk:{s012}:outbox 0190...ab 1790000000456-0
--   -> {'OK', 0, 0}
assert(#KEYS == 2 and #ARGV >= 2 and #ARGV % 2 == 0, 'acknowledge takes 2 KEYS and pairs of ARGV')
assert(#ARGV <= 4000, 'too many entries at once') -- unpack() ends at about 8000
local call, count = redis.call, #ARGV / 2
if call('XDEL', KEYS[2], unpack(ARGV, count + 1)) == count then
  call('HDEL', KEYS[1], unpack(ARGV, 1, count)) -- all were here, and with each its mark
  return {'OK', 0, 0}
end
local marks = {}
for i, text in ipairs(call('HMGET', KEYS[1], unpack(ARGV, 1, count))) do
  if text and string.sub(text, 3) == ARGV[count + i] then marks[#marks + 1] = ARGV[i] end
end
if #marks > 0 then call('HDEL', KEYS[1], unpack(marks)) end
return {'OK', 0, 0}
