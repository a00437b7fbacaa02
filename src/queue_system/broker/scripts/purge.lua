-- Removes items of one queue with their records and deduplication keys, at most 1,000 or about 8 MiB a call.
-- KEYS      1 prefix of every key
-- ARGV      1 queue ("high:NAME") · 2 "#", id of the call, a space and the number of this request in it ("" for none)
--           then members of the delayed set to remove (none: items of the list are removed)
-- Reply     items removed; 0 when none is left
-- Uses      tell.lua
-- Invariant sent again with the same call and number, it removes nothing more and gives the same answer;
--           a deduplication key goes only while it still names the removed operation.
local prefix, queue = KEYS[1], ARGV[1]
local priority, name = string.match(queue, '^(%a+):(.+)$')
local list, delayed, dedup = prefix .. queue, prefix .. 'delayed', prefix .. 'dedup'
redis.call('LLEN', list)
redis.call('ZCARD', delayed)
redis.call('HLEN', dedup)

local call, request = string.match(ARGV[2] or '', '^#(%S+) (%d+)$')
local answers = call and prefix .. 'answer:' .. call
if answers then
  local before = redis.pcall('GET', answers)
  local last, answer = string.match(type(before) == 'string' and before or '', '^(%d+) (%d+)$')
  if last and tonumber(last) >= tonumber(request) then return last == request and tonumber(answer) or 0 end
end

local function forget(item)
  local id = string.match(item, '^{"operation_id":"([^"\\]+)"')
  if not id then return end
  local record = redis.pcall('GET', prefix .. 'operation:' .. id)
  local status, key = string.match(type(record) == 'string' and record or '', '^(%a+)\t[^\t]*\t%d+\t[^\t]*\t([^\t\n]*)')
  if status == 'succeeded' or status == 'failed' or status == 'rejected' then return end -- it was a callback item
  key = key or ''
  if key ~= '' and redis.call('HGET', dedup, key) == id then redis.call('HDEL', dedup, key) end
  redis.call('DEL', prefix .. 'operation:' .. id)
  tell(id)
end

local removed = 0
if #ARGV > 2 then
  for i = 3, #ARGV do
    if redis.call('ZREM', delayed, ARGV[i]) == 1 then
      removed = removed + 1
      forget(string.match(ARGV[i], '^[^\n]*\n[^\n]*\n(.*)$') or '')
    end
  end
else
  local bytes, largest, step = 0, 1, 1
  while removed < 1000 and bytes < 8388608 do
    local items = redis.call('RPOP', list, step)
    if not items then break end
    removed = removed + #items
    for _, item in ipairs(items) do
      bytes, largest = bytes + #item, math.max(largest, #item)
      forget(item)
    end
    step = math.max(1, math.min(16, 1000 - removed, math.floor((8388608 - bytes) / largest)))
  end
  if redis.call('EXISTS', list) == 0 then redis.pcall('ZREM', prefix .. 'ready:' .. priority, name) end
end
if removed > 0 then redis.pcall('HINCRBY', prefix .. 'metrics', 'purged', removed) end
if removed > 0 and answers then redis.pcall('SET', answers, request .. ' ' .. removed, 'PX', 300000) end
return removed
