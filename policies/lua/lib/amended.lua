-- note_amended(account key, epoch, seq): leaves word on an account that is not loaded that Postgres
-- has changed, so that a worker which read Postgres before this seq cannot load what it read (see
-- load.lua). It is kept for a minute, longer than reading an account takes.
local function note_amended(account_key, epoch, seq)
  redis.call('HSET', account_key, 'amended_epoch', epoch, 'amended_seq', seq)
  redis.call('PEXPIRE', account_key, 60000)
end
