-- clock_us(): the server's time in microseconds since 1970 UTC.
-- Nothing else tells a script the time: a gateway's clock must not be able to expire a hold.
local function clock_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end
