-- whole(text): an ARGV that must be an integer in 0 .. 2^53 - 1, where Lua numbers are exact.
local function whole(text)
  local number = tonumber(text)
  assert(number and number >= 0 and number < 9007199254740992 and number % 1 == 0,
    'an ARGV is no integer in 0 .. 2^53 - 1')
  return number
end

-- gate(meta key, epoch and seq that the caller has seen, while_closed): refusal or nil, the shard's
-- epoch, its seq, whether it is closed. A shard that is empty, reborn or older than what the caller
-- saw has lost data and must be rebuilt; without a seq it is closed, because somebody is rebuilding
-- it. With `while_closed` who names the epoch under which it is being rebuilt may pass: the
-- rebuilder. An epoch of 0 says that the caller has seen nothing yet.
local function gate(meta_key, epoch_seen, seq_seen, while_closed)
  local meta = redis.call('HMGET', meta_key, 'epoch', 'seq')
  local epoch, seq = tonumber(meta[1]), tonumber(meta[2])
  if not epoch then return {'STALE', 0, 0} end
  local seen = whole(epoch_seen)
  if not seq then
    if while_closed and seen == epoch then return nil, epoch, 0, true end
    return {'CLOSED', epoch, 0}
  end
  if seen ~= 0 then
    if seen ~= epoch then return {'STALE', epoch, seq} end
    if seq < whole(seq_seen) then return {'REGRESSED', epoch, seq} end
  end
  return nil, epoch, seq, false
end

-- next_seq(meta key, seq, closed): writes down that the shard has changed; the seq to reply. A
-- closed shard has none: what happens there is repeated by the next rebuild.
local function next_seq(meta_key, seq, closed)
  if closed then return seq end
  redis.call('HSET', meta_key, 'seq', string.format('%d', seq + 1))
  return seq + 1
end
