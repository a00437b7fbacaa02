-- Adds new operations to one queue: record, deduplication, list or delayed set, ready index, wake-up markers, counter.
-- KEYS      1 prefix of every key
-- ARGV      1 priority · 2 name of the queue · 3 nonce of the call · 4 delay in ms · 5 lifetime of a deduplication key in ms
--           then for each operation: id · item · deduplication key ("" for none)
-- Reply     one entry for each operation: 1 queued · 0 the id is taken · the id of the operation that holds the deduplication key
-- Invariant sent again with the same nonce it adds nothing; refused by maxmemory or a foreign type, it leaves all as it was.
local prefix, priority, name, nonce, delay_ms = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local time = redis.call('TIME')
local due_ms = time[1] * 1000 + math.floor(time[2] / 1000) + delay_ms
local queue = priority .. ':' .. name
local header = (delay_ms > 0 and 'delayed\t' or 'queued\t') .. nonce .. string.format('\t%d\t', due_ms) .. queue .. '\t'

local function live_holder(key, id)
  local holder = redis.call('HGET', prefix .. 'dedup', key)
  if not holder or holder == id then return nil end
  local record = redis.pcall('GET', prefix .. 'operation:' .. holder)
  local status, touched_ms = string.match(type(record) == 'string' and record or '', '^(%a+)\t[^\t]*\t(%d+)')
  local live = status == 'queued' or status == 'delayed' or status == 'running'
  return live and tonumber(touched_ms) + tonumber(ARGV[5]) > due_ms - delay_ms and holder or nil
end

local answers, fresh, keyed, refused = {}, {}, {}, nil
for i = 6, #ARGV, 3 do
  if ARGV[i + 2] ~= '' then
    redis.call('HLEN', prefix .. 'dedup') -- before the first write, to see its type
    break
  end
end
local added = {}
for i = 6, #ARGV, 3 do
  local id, key = ARGV[i], ARGV[i + 2]
  local answer = key ~= '' and live_holder(key, id)
  if not answer then
    local record_key = prefix .. 'operation:' .. id
    if redis.call('SET', record_key, header .. key, 'NX') then
      answer = 1
      added[id] = true
      fresh[#fresh + 1] = ARGV[i + 1]
      if key ~= '' then
        redis.call('HSET', prefix .. 'dedup', key, id)
        keyed[#keyed + 1] = key
      end
    else
      local record = redis.pcall('GET', record_key)
      local resent = type(record) == 'string' and string.match(record, '^%a+\t([^\t]*)\t') == nonce and not added[id]
      answer = resent and 1 or 0
    end
  end
  answers[#answers + 1] = answer
end
if #fresh == 0 then return answers end

local function must(result)
  if type(result) == 'table' and result.err then refused = refused or result end
  return result
end

local list, ready, delayed = prefix .. queue, prefix .. 'ready:' .. priority, prefix .. 'delayed'
local pushed, indexed = nil, 0
if delay_ms > 0 then
  must(redis.pcall('ZCARD', delayed))
  if not refused then must(redis.pcall('SADD', prefix .. 'registry', list)) end
else
  pushed = must(redis.pcall('LPUSH', list, unpack(fresh)))
  if not refused then indexed = must(redis.pcall('ZADD', ready, 'NX', time[1] * 1000000 + time[2], name)) end
  if indexed == 1 then must(redis.pcall('SADD', prefix .. 'registry', list)) end
end
if refused then -- a foreign type: take back what was new
  for id in pairs(added) do redis.call('DEL', prefix .. 'operation:' .. id) end
  if #keyed > 0 then redis.call('HDEL', prefix .. 'dedup', unpack(keyed)) end
  if type(pushed) == 'number' then redis.call('LPOP', list, #fresh) end
  if indexed == 1 then redis.call('ZREM', ready, name) end
  return refused
end
if delay_ms > 0 then
  for i = 1, #fresh do redis.call('ZADD', delayed, due_ms, '0\n' .. queue .. '\n' .. fresh[i]) end
end
redis.pcall('ZADD', prefix .. 'wake', 0, 'r') -- a hint: without it, workers look every 5 s
if indexed == 1 or delay_ms > 0 then redis.pcall('ZADD', prefix .. 'wake:' .. name, 0, 'r') end
redis.pcall('HINCRBY', prefix .. 'metrics', 'enqueued', #fresh)
return answers
