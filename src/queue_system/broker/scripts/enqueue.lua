-- Adds new operations to one queue: record, deduplication, list or delayed set, ready index, wake-up markers, counter.
-- KEYS      1 prefix of every key
-- ARGV      1 priority · 2 name of the queue · 3 delay in ms · 4 lifetime of a deduplication key in ms, or "" for none
--           5 nonce of the call, then for each operation: id · item, and unless 4 is "" its deduplication key, or ""
-- Reply     how many, if all are queued; else an entry for each: 1 queued · 0 the id is taken · the id that holds the key
-- Uses      holder.lua
-- Invariant sent again with the same nonce it adds nothing; refused by maxmemory or a foreign type, it changes nothing.
local call, pcall = redis.call, redis.pcall
local prefix, priority, name, delay_ms, nonce = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[5]
local time = call('TIME')
local due_ms = time[1] * 1000 + math.floor(time[2] / 1000) + delay_ms
local queue, status = priority .. ':' .. name, delay_ms > 0 and 'delayed' or 'queued'
local header, records = string.format('%s\t%s\t%d\t%s\t', status, nonce, due_ms, queue), prefix .. 'operation:'
-- What a delayed one's record tells beside the due time: no execution yet, and when it was enqueued.
local rest = delay_ms > 0 and string.format('\t0\t%d\t0\t', due_ms - delay_ms) or ''
local list, ready, delayed = prefix .. queue, prefix .. 'ready:' .. priority, prefix .. 'delayed'
local registry = prefix .. 'registry'
local items, writes, added, answers, held = {}, {}, {}, nil, {}

-- Puts the items into their list; returns an error where a key has a foreign type, or memory is full.
local pushed, indexed
local function take_back()
  if pushed then call('LTRIM', list, #items, -1) end
  if indexed then call('ZREM', ready, name) end
end
local function push()
  local result
  if delay_ms > 0 then
    result = pcall('ZCARD', delayed)
    if type(result) == 'number' then result = pcall('SCARD', registry) end
  else
    result = pcall('LPUSH', list, unpack(items))
    pushed = type(result) == 'number'
    if pushed then result = pcall('ZADD', ready, 'NX', string.format('%d%06d', time[1], time[2]), name) end
    indexed = pushed and result == 1
    if indexed then result = pcall('SCARD', registry) end
  end
  if type(result) == 'number' then return nil end
  take_back()
  return result
end

local whole = ARGV[4] == ''
if whole then -- the usual case, at one command's price
  for i = 6, #ARGV, 2 do
    local id = ARGV[i]
    whole = whole and not added[id]
    added[id] = true
    writes[#writes + 1] = records .. id
    writes[#writes + 1] = header .. rest
    items[#items + 1] = ARGV[i + 1]
  end
  if whole then
    local refused = push()
    if refused then return refused end
    local written = pcall('MSETNX', unpack(writes))
    if written ~= 1 then take_back() end -- an id is known already, or the user may not write records
    if type(written) ~= 'number' then return written end
    whole = written == 1
  end
end
if not whole then
  local dedup, lifetime_ms = prefix .. 'dedup', tonumber(ARGV[4])
  if lifetime_ms then call('HLEN', dedup) end -- before the first write, to see its type
  items, writes, added, answers = {}, {}, {}, {}
  local function resent(id)
    local record = pcall('GET', records .. id)
    return type(record) == 'string' and string.match(record, '^%a+\t([^\t]*)\t') == nonce and not added[id]
  end
  local function holder_of(key, id)
    if held[key] then return held[key] ~= id and held[key] or nil end
    return live_holder(key, id, lifetime_ms, due_ms - delay_ms)
  end
  for i = 6, #ARGV, lifetime_ms and 3 or 2 do
    local id, key = ARGV[i], lifetime_ms and ARGV[i + 2] or ''
    local answer = key ~= '' and (resent(id) and 1 or holder_of(key, id))
    if not answer and not added[id] and call('EXISTS', records .. id) == 0 then
      answer = 1
      added[id] = true
      items[#items + 1] = ARGV[i + 1]
      writes[#writes + 1] = records .. id
      writes[#writes + 1] = header .. key .. rest
      if key ~= '' then held[key] = id end
    elseif not answer then
      answer = resent(id) and 1 or 0
    end
    answers[#answers + 1] = answer
  end
  if #items == 0 then return answers end
  local refused = push()
  if refused then return refused end
  local written = pcall('MSETNX', unpack(writes))
  if written ~= 1 then
    take_back()
    return written
  end
  for key, id in pairs(held) do call('HSET', dedup, key, id) end
end

if delay_ms > 0 then
  for i = 1, #items do call('ZADD', delayed, due_ms, '0\n' .. queue .. '\n' .. items[i]) end
end
if indexed or delay_ms > 0 then -- the list is registered; hints: without them, workers look every 5 s
  call('SADD', registry, list)
  pcall('ZADD', prefix .. 'wake', '0', 'r')
  pcall('ZADD', prefix .. 'wake:' .. name, '0', 'r')
end
pcall('HINCRBY', prefix .. 'metrics', 'enqueued', #items)
return answers or #items
