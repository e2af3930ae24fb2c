-- whole(text): an ARGV that must be an integer in 0 .. 2^53 - 1, where Lua numbers are exact.
local function whole(text)
  local number = tonumber(text)
  assert(number and number >= 0 and number < 9007199254740992 and number % 1 == 0,
    'an ARGV is no integer in 0 .. 2^53 - 1')
  return number
end

-- gate(meta key, epoch and seq that the caller has seen): refusal or nil, the shard's epoch, its
-- seq. A shard that is empty, reborn or older than what the caller saw has lost data and must be
-- rebuilt. An epoch of 0 says that the caller has seen nothing yet.
local function gate(meta_key, epoch_seen, seq_seen)
  local meta = redis.call('HMGET', meta_key, 'epoch', 'seq')
  local epoch, seq = tonumber(meta[1]), tonumber(meta[2])
  if not epoch or not seq then return {'STALE', 0, 0} end
  local seen = whole(epoch_seen)
  if seen ~= 0 then
    if seen ~= epoch then return {'STALE', epoch, seq} end
    if seq < whole(seq_seen) then return {'REGRESSED', epoch, seq} end
  end
  return nil, epoch, seq
end
