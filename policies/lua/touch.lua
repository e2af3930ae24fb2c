-- needs: lib/gate.lua lib/clock.lua
--
-- Look up which hold a task has, and renew its lease: the task was heard of.
--
-- KEYS  1 shard meta
--       2 shard holds
--       3 shard leases
--       4 record of the task
-- ARGV  1 epoch seen (0: none)
--       2 highest seq seen
--       3 lease, ms from now
--       4 how long the record is kept, ms
--       5 greatest age, ms after its admission: the lease of a hold ends no later
-- Result, always starting with {status, epoch, seq}:
--   OK         record, and 1 if its hold is live, else 0: it has run out or was settled
--   GONE       the task has no record
--   STALE, REGRESSED, CLOSED   as in admit
-- The lease of a hold that is not live is not renewed, nor is its record's time. Never shortens a
-- lease.
--
-- Example: EVALSHA ... 4 tk:{s012}:meta tk:{s012}:holds tk:{s012}:leases tk:{s012}:t:7:5f0e
--            3 42 3600000 90000000 604800000
--   -> {'OK', 3, 43, '0190...ab {...}', 1}
assert(#KEYS == 4 and #ARGV == 5, 'touch takes 4 KEYS and 5 ARGV')
local lease_ms, kept_ms, age_ms = whole(ARGV[3]), whole(ARGV[4]), whole(ARGV[5])
local refusal, epoch, seq = gate(KEYS[1], ARGV[1], ARGV[2])
if refusal then return refusal end
local call = redis.call
local record = call('GET', KEYS[4])
if not record then return {'GONE', epoch, seq} end
local call_id = string.match(record, '^(%x+) ')
local text = call_id and call('HGET', KEYS[2], call_id)
if not text or string.sub(text, 1, 2) ~= 'h|' then return {'OK', epoch, seq, record, 0} end
local now_us = clock_us()
local over_ms = string.match(text, '^h|%d+|(%d+)|') + age_ms
local deadline_ms = math.min((now_us - now_us % 1000) / 1000 + lease_ms, over_ms)
call('PEXPIRE', KEYS[4], ARGV[4])
call('ZADD', KEYS[3], 'GT', string.format('%d', 2 * deadline_ms + 1), call_id)
return {'OK', epoch, next_seq(KEYS[1], seq), record, 1}
