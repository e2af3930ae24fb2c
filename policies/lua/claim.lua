-- needs: lib/gate.lua lib/clock.lua lib/lineage.lua
--
-- Claim an idempotency key for a call, or say what became of the call that has it.
--
-- KEYS  1 shard meta
--       2 account
--       3 shard holds
--       4 shard outbox (stream)
--       5 record of the key (hash: call, print, until; done: the call has been answered)
--       6 answer of the key (string; goes before the record)
-- ARGV  1 call id
--       2 epoch seen (0: none)
--       3 highest seq seen
--       4 key id (of the API key)
--       5 fingerprint of the request
--       6 lease, ms: the call has to be admitted by then
--       7 time to live of the record, ms
--       8 grace, ms: what a worker may take from settling a call to remembering its answer
--       9 call id that is over and has left no answer: its claim is taken over ('': none)
--       10 version of the key's guards that the call was checked against, as in admit
-- Result, always starting with {status, epoch, seq}:
--   NEW          the key is this call's: until (ms), after_loss (1: the shard has lost data within
--                the record's time to live, so that the key may have been another call's)
--   RUNNING      another call has it and may be running: it may yet be admitted, or has a hold, or
--                was settled within the grace
--   OTHER        another request has it
--   DONE         the answer
--   STORED       call id: it was answered, and Redis does not have the answer any more
--   ENDED        call id, charged (microcredits), ending, status: settled, and not answered
--   GONE         call id: it has no hold any more; Postgres knows whether it was settled
--   KEY, SUSPENDED, GUARD, LOAD, STALE, REGRESSED, CLOSED   as in admit
-- The same call id again gets the same NEW. At maxmemory it fails before it has written anything.
--
-- Example: EVALSHA ... 6 tk:{s012}:meta tk:{s012}:a:7 tk:{s012}:holds tk:{s012}:outbox
--            tk:{s012}:i:7:9f86...08 tk:{s012}:ia:7:9f86...08
--            0190...ab 3 41 5 2cf2...24 30000 86400000 5000 '' 0
--   -> {'NEW', 3, 41, 1790000030123, 0}
assert(#KEYS == 6 and #ARGV == 10, 'claim takes 6 KEYS and 10 ARGV')
local call, format = redis.call, string.format
local lease_ms, ttl_ms, grace_ms = whole(ARGV[6]), whole(ARGV[7]), whole(ARGV[8])
local refusal, epoch, seq = gate(KEYS[1], ARGV[2], ARGV[3])
if refusal then return refusal end
local now_us = clock_us()
local now_ms = (now_us - now_us % 1000) / 1000

-- Who may not call may not hear an old answer either.
local account = call('HMGET', KEYS[2], 'epoch', 'status', 'k:' .. ARGV[4])
if tonumber(account[1]) ~= epoch or not account[3] then return {'LOAD', epoch, seq} end
local key_expires_ms, key_rules = string.match(account[3], '^(-?%d+) ?(.*)$')
key_expires_ms = tonumber(key_expires_ms)
if key_expires_ms ~= 0 and key_expires_ms <= now_ms then return {'KEY', epoch, seq} end
local status = lineage_of(KEYS[2], ARGV[4], key_rules, now_ms)
if status then return {status, epoch, seq} end
if account[2] ~= 'active' then return {'SUSPENDED', epoch, seq} end
local version = tonumber(string.match(key_rules, 'gv:(%d+)') or 0)
if version ~= whole(ARGV[10]) then return {'GUARD', epoch, seq, version} end

-- What has become of the call that has the key: nil where it is free for this one.
local function outcome(record)
  local holder, until_ms = record[1], tonumber(record[3])
  if record[2] ~= ARGV[5] then return {'OTHER', epoch, seq} end
  if record[4] then
    local answer = call('GET', KEYS[6])
    if answer then return {'DONE', epoch, seq, answer} end
    return {'STORED', epoch, seq, holder}
  end
  local text = call('HGET', KEYS[3], holder)
  if not text then
    if now_ms < until_ms then return {'RUNNING', epoch, seq} end
    return holder ~= ARGV[9] and {'GONE', epoch, seq, holder} or nil
  end
  local outbox_id = string.match(text, '^[sx]|(.*)$')
  if not outbox_id then return {'RUNNING', epoch, seq} end
  if now_ms < string.match(outbox_id, '^%d+') + grace_ms then return {'RUNNING', epoch, seq} end
  if holder == ARGV[9] then return nil end
  local entry = call('XRANGE', KEYS[4], outbox_id, outbox_id)[1]
  local charged, ending, status
  if entry then
    charged, ending, status = string.match(entry[2][2],
      '^%x+|[^|]*|%d+|%d+|%d+|(%d+)|%d+|[^|]*|([^,]*),(%d+),')
  end
  if not charged then return {'GONE', epoch, seq, holder} end
  return {'ENDED', epoch, seq, holder, tonumber(charged), ending, tonumber(status)}
end

local until_ms = now_ms + lease_ms
local record = call('HMGET', KEYS[5], 'call', 'print', 'until', 'done')
if record[1] == ARGV[1] then
  until_ms = tonumber(record[3]) -- sent again: its reply was lost
else
  local found = record[1] and outcome(record)
  if found then return found end
  call('HSET', KEYS[5], 'call', ARGV[1], 'print', ARGV[5], 'until', format('%d', until_ms))
  call('PEXPIRE', KEYS[5], format('%d', ttl_ms))
end
local lost_ms = tonumber(call('HGET', KEYS[1], 'lost'))
return {'NEW', epoch, seq, until_ms, lost_ms and now_ms < lost_ms + ttl_ms and 1 or 0}
