-- Removes items of one queue with their records and deduplication keys, at most 1,000 a call.
-- KEYS      1 prefix of every key
-- ARGV      1 queue ("high:NAME"), then members of the delayed set to remove (none: items of the list are removed)
-- Reply     items removed
-- Uses      tell.lua
-- Invariant a deduplication key goes only while it still names the removed operation.
local prefix, queue = KEYS[1], ARGV[1]
local priority, name = string.match(queue, '^(%a+):(.+)$')
local list, delayed, dedup = prefix .. queue, prefix .. 'delayed', prefix .. 'dedup'
redis.call('LLEN', list)
redis.call('ZCARD', delayed)
redis.call('HLEN', dedup)

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
if #ARGV > 1 then
  for i = 2, #ARGV do
    if redis.call('ZREM', delayed, ARGV[i]) == 1 then
      removed = removed + 1
      forget(string.match(ARGV[i], '^[^\n]*\n[^\n]*\n(.*)$') or '')
    end
  end
else
  local items = redis.call('RPOP', list, 1000) or {}
  removed = #items
  for i = 1, removed do forget(items[i]) end
  if redis.call('EXISTS', list) == 0 then redis.pcall('ZREM', prefix .. 'ready:' .. priority, name) end
end
if removed > 0 then redis.pcall('HINCRBY', prefix .. 'metrics', 'purged', removed) end
return removed
