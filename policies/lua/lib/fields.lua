-- write_fields(hash key, field, value pairs): HSET of any number; unpack() ends at about 8000.
local function write_fields(hash_key, pairs_list)
  for first = 1, #pairs_list, 4000 do
    redis.call('HSET', hash_key, unpack(pairs_list, first, math.min(first + 3999, #pairs_list)))
  end
end
