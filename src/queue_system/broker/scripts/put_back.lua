-- Puts items back into their lists and wakes a worker. Not a script of its own: it precedes the scripts that name it under Uses.
-- KEYS      1 prefix of every key
-- ARGV      as the script that uses it
-- Reply     none
-- Invariant an item whose list cannot take it waits a second in the delayed set, so it is never lost.
local returning, lists_in_order = {}, {}

local function put_aside(token, value, wait_ms)
  local time = redis.call('TIME')
  local due_ms = time[1] * 1000 + math.floor(time[2] / 1000) + (tonumber(wait_ms) or 1000)
  redis.call('ZADD', KEYS[1] .. 'delayed', due_ms, token .. '\n' .. value)
end

-- Lets the record of an operation that was noted as running say so no longer. That of one without an id goes: it is named
-- after its token, and will have another.
local function note_queued(item, token)
  local id = string.match(item, '^{"operation_id":"([^"\\]+)"')
  if not id then redis.pcall('DEL', KEYS[1] .. 'operation:token-' .. token) end
  local key = KEYS[1] .. 'operation:' .. (id or '')
  local record = id and redis.pcall('GET', key)
  if type(record) ~= 'string' or string.sub(record, 1, 8) ~= 'running\t' then return end
  redis.pcall('SET', key, 'queued' .. string.sub(record, 8))
  tell(id)
end

-- Notes an item for `finish_put_back`; items of one list keep their order.
local function put_back(push, token, value)
  local queue, item = string.match(value, '^([^\n]*)\n(.*)$')
  local priority, name = string.match(queue or '', '^(%a+):([%w_.-]+)$')
  if priority ~= 'high' and priority ~= 'normal' and priority ~= 'low' then return put_aside(token, value) end
  local list = push .. queue
  if not returning[list] then
    returning[list] = {push = push, queue = queue, priority = priority, name = name, items = {}, tokens = {}}
    lists_in_order[#lists_in_order + 1] = returning[list]
  end
  note_queued(item, token)
  table.insert(returning[list].items, item)
  table.insert(returning[list].tokens, token)
end

local function finish_put_back()
  local prefix, time = KEYS[1], redis.call('TIME')
  for _, list in ipairs(lists_in_order) do
    if type(redis.pcall(list.push, prefix .. list.queue, unpack(list.items))) == 'number' then
      redis.pcall('SADD', prefix .. 'registry', prefix .. list.queue)
      redis.pcall('ZADD', prefix .. 'ready:' .. list.priority, 'NX', time[1] * 1000000 + time[2], list.name)
      redis.pcall('ZADD', prefix .. 'wake', 0, 'r')
      redis.pcall('ZADD', prefix .. 'wake:' .. list.name, 0, 'r')
    else
      for i, item in ipairs(list.items) do put_aside(list.tokens[i], list.queue .. '\n' .. item) end
    end
  end
end
