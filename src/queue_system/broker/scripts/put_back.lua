-- Puts an item back into its list and wakes a worker for it. Not a script of its own: it precedes the scripts that name it under Uses.
-- KEYS      1 prefix of every key
-- ARGV      as the script that uses it
-- Reply     none
-- Invariant an item whose list cannot take it waits a second in the delayed set, so it is never lost.
local function put_back(push, token, value)
  local prefix, time = KEYS[1], redis.call('TIME')
  local queue, item = string.match(value, '^([^\n]*)\n(.*)$')
  local priority, name = string.match(queue, '^(%a+):(.+)$')
  local pushed = priority and redis.pcall(push, prefix .. queue, item)
  if type(pushed) ~= 'number' then
    local due_ms = time[1] * 1000 + math.floor(time[2] / 1000) + 1000
    redis.call('ZADD', prefix .. 'delayed', due_ms, token .. '\n' .. value)
    return
  end
  redis.pcall('SADD', prefix .. 'registry', prefix .. queue)
  redis.pcall('ZADD', prefix .. 'ready:' .. priority, 'NX', time[1] * 1000000 + time[2], name)
  redis.pcall('ZADD', prefix .. 'wake', 0, 'r')
  redis.pcall('ZADD', prefix .. 'wake:' .. name, 0, 'r')
end
