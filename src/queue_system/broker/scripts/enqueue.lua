-- Adds new operations to one queue: record, deduplication, list or delayed set, ready index, wake-up markers, counter.
-- KEYS      1 prefix of every key
-- ARGV      1 queue ("high:NAME") · 2 nonce of the call · 3 delay in ms · 4 lifetime of a deduplication key in ms
--           then for each operation: id · item · deduplication key ("" for none)
-- Reply     one entry for each operation: 1 queued · 0 the id is taken · the id of the operation that holds the deduplication key
-- Invariant sent again with the same nonce it adds nothing; at maxmemory it is refused before its first write.
local prefix, queue, nonce = KEYS[1], ARGV[1], ARGV[2]
local delay_ms, dedup_ttl_ms = tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local priority, name = string.match(queue, '^(%a+):(.+)$')
local list, ready, registry = prefix .. queue, prefix .. 'ready:' .. priority, prefix .. 'registry'
local delayed, dedup = prefix .. 'delayed', prefix .. 'dedup'
local wake, wake_name = prefix .. 'wake', prefix .. 'wake:' .. name

redis.call('LLEN', list)
local indexed = redis.call('ZSCORE', ready, name)
if not indexed then redis.call('SCARD', registry) end
if delay_ms > 0 then redis.call('ZCARD', delayed) end
for i = 7, #ARGV, 3 do
  if ARGV[i] ~= '' then
    redis.call('HLEN', dedup)
    break
  end
end

local due_ms = now_ms + delay_ms
local header = (delay_ms > 0 and 'delayed\t' or 'queued\t') .. nonce .. string.format('\t%.0f\t', due_ms) .. queue .. '\t'

local function record_of(id)
  local record = redis.pcall('GET', prefix .. 'operation:' .. id)
  return type(record) == 'string' and record or nil
end

local function live_holder(key, id)
  local holder = redis.call('HGET', dedup, key)
  if not holder or holder == id then return nil end
  local record = record_of(holder)
  if not record then return nil end
  local status, touched_ms = string.match(record, '^(%a+)\t[^\t]*\t(%d+)')
  local live = status == 'queued' or status == 'delayed' or status == 'running'
  return live and tonumber(touched_ms) + dedup_ttl_ms > now_ms and holder or nil
end

local answers, fresh, added = {}, {}, {}
for i = 5, #ARGV, 3 do
  local id, item, key = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local answer = key ~= '' and live_holder(key, id)
  if not answer then
    if redis.call('SET', prefix .. 'operation:' .. id, header .. key, 'NX') then
      answer = 1
      added[id] = true
      fresh[#fresh + 1] = item
      if key ~= '' then redis.call('HSET', dedup, key, id) end
    else
      local record = record_of(id)
      local resent = record and string.match(record, '^%a+\t([^\t]*)\t') == nonce and not added[id]
      answer = resent and 1 or 0
    end
  end
  answers[#answers + 1] = answer
end

if #fresh > 0 then
  if delay_ms > 0 then
    for i = 1, #fresh do redis.call('ZADD', delayed, due_ms, '0\n' .. queue .. '\n' .. fresh[i]) end
  else
    redis.call('LPUSH', list, unpack(fresh))
  end
  if not indexed then -- an indexed list is registered
    redis.call('SADD', registry, list)
    if delay_ms == 0 then redis.call('ZADD', ready, time[1] * 1000000 + time[2], name) end
  end
  redis.pcall('ZADD', wake, 0, 'r') -- a hint: without it, workers look every 5 s
  redis.pcall('ZADD', wake_name, 0, 'r')
  redis.pcall('HINCRBY', prefix .. 'metrics', 'enqueued', #fresh)
end
return answers
