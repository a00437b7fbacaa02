-- Puts lists that were filled by a foreign LPUSH into the ready index, and wakes a worker for them.
-- KEYS      1 prefix of every key
-- ARGV      1 cursor ("0" to begin) · 2 how many ms must lie between two sweeps of the fleet
-- Reply     {next cursor, lists found}; the cursor is "0" at the end, "-1" when another worker has swept just now
-- Invariant one sweep for each interval and fleet, by the server's clock; it only adds to the index.
local prefix, cursor = KEYS[1], ARGV[1]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local registry, swept = prefix .. 'registry', prefix .. 'swept'

local last = redis.pcall('GET', swept)
local last_ms = type(last) == 'string' and tonumber(last) or 0
if cursor == '0' and now_ms - last_ms < tonumber(ARGV[2]) and last_ms <= now_ms then return {'-1', 0} end
redis.call('SCARD', registry)
redis.call('DEL', swept) -- not subject to maxmemory, so what follows is not either
redis.call('SET', swept, string.format('%.0f', now_ms))
local page, found = redis.call('SSCAN', registry, cursor, 'COUNT', 500), 0
for _, list in ipairs(page[2]) do
  local queue = string.sub(list, 1, #prefix) == prefix and string.sub(list, #prefix + 1) or ''
  local priority, name = string.match(queue, '^(%a+):([%w_.-]+)$')
  if priority == 'high' or priority == 'normal' or priority == 'low' then
    local index, length = prefix .. 'ready:' .. priority, redis.pcall('LLEN', list)
    if type(length) == 'number' and length > 0 and not redis.pcall('ZSCORE', index, name) then
      redis.call('ZADD', index, time[1] * 1000000 + time[2], name)
      redis.pcall('ZADD', prefix .. 'wake', 0, 'r')
      redis.pcall('ZADD', prefix .. 'wake:' .. name, 0, 'r')
      found = found + 1
    end
  end
end
return {page[1], found}
