-- needs: lib/gate.lua lib/clock.lua
--
-- Remember the answer of a call that has claimed an idempotency key; or, without one, that the call
-- still has it, where Redis has lost that.
--
-- KEYS  1 record of the key (hash)
--       2 answer of the key (string)
--       3 bytes that answers of the account take (counter of a window)
-- ARGV  1 call id
--       2 fingerprint of the request
--       3 lease, ms: as in claim
--       4 time to live of the record, ms
--       5 answer ('': none yet)
--       6 receipt: kept in its place where the account's answers take too much
--       7 time to live of the answer, ms; also the counter's window
--       8 bytes that answers of the account may take in a window
-- Result {status, 0, 0}: it looks at no epoch, for what was answered stays so.
--   OK         remembered; of a call that has been answered before, the new answer
--   RECEIPT    the receipt is
--   KEPT       another call has the key: nothing happened
-- At maxmemory it fails before it has written anything.
--
-- Example: EVALSHA ... 3 tk:{s012}:i:7:9f86...08 tk:{s012}:ia:7:9f86...08 tk:{s012}:ib:7
--            0190...ab 2cf2...24 30000 86400000 '{...}' '{...}' 600000 33554432
--   -> {'OK', 0, 0}
assert(#KEYS == 3 and #ARGV == 8, 'remember takes 3 KEYS and 8 ARGV')
local call, format = redis.call, string.format
local lease_ms, ttl_ms = whole(ARGV[3]), whole(ARGV[4])
local answer_ttl_ms, bytes_max = whole(ARGV[7]), whole(ARGV[8])
local holder = call('HGET', KEYS[1], 'call')
if holder and holder ~= ARGV[1] then return {'KEPT', 0, 0} end
local now_us = clock_us()
local until_ms = format('%d', (now_us - now_us % 1000) / 1000 + lease_ms)
if ARGV[5] == '' then
  if not holder then
    call('HSET', KEYS[1], 'call', ARGV[1], 'print', ARGV[2], 'until', until_ms)
    call('PEXPIRE', KEYS[1], format('%d', ttl_ms))
  end
  return {'OK', 0, 0}
end
local answer, status = ARGV[5], 'OK'
local bytes = tonumber(call('GET', KEYS[3]) or 0)
if bytes + #answer > bytes_max then answer, status = ARGV[6], 'RECEIPT' end
call('SET', KEYS[2], answer, 'PX', format('%d', answer_ttl_ms))
call('HSET', KEYS[1], 'call', ARGV[1], 'print', ARGV[2], 'until', until_ms, 'done', '1')
call('PEXPIRE', KEYS[1], format('%d', ttl_ms))
call('INCRBY', KEYS[3], #answer)
if bytes == 0 then call('PEXPIRE', KEYS[3], format('%d', answer_ttl_ms)) end
return {status, 0, 0}
