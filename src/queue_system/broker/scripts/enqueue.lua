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
local careful, items, writes, answers, held, pushed, indexed, written = ARGV[4] ~= '', {}, {}, nil, nil, nil, nil, nil

if not careful then -- the usual case, at one command's price
  local record = header .. rest
  for i = 6, #ARGV, 2 do
    writes[#writes + 1] = records .. ARGV[i]
    writes[#writes + 1] = record
    items[#items + 1] = ARGV[i + 1]
  end
  local seen = {}
  for i = 6, #items > 1 and #ARGV or 0, 2 do
    careful = careful or seen[ARGV[i]]
    seen[ARGV[i]] = true
  end
end
repeat -- without functions, which would cost every call
  if careful then
    local dedup, lifetime_ms, added = prefix .. 'dedup', tonumber(ARGV[4]), {}
    if lifetime_ms then call('HLEN', dedup) end -- before the first write, to see its type
    items, writes, answers, held = {}, {}, {}, {}
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
  end
  if delay_ms > 0 then -- before the first write, to see the types
    written = pcall('ZCARD', delayed)
    if type(written) == 'number' then written = pcall('SCARD', registry) end
  else
    written = pcall('LPUSH', list, unpack(items))
    pushed = type(written) == 'number'
    if pushed then written = pcall('ZADD', ready, 'NX', string.format('%d%06d', time[1], time[2]), name) end
    indexed = pushed and written == 1
    if indexed then written = pcall('SCARD', registry) end
  end
  if type(written) == 'number' then written = pcall('MSETNX', unpack(writes)) end
  if written ~= 1 then -- a foreign type, memory is full, the user may not write records, or an id is known already
    if pushed then call('LTRIM', list, #items, -1) end
    if indexed then call('ZREM', ready, name) end
    if careful or type(written) ~= 'number' then return written end
    careful = true
  end
until written == 1

if held then
  for key, id in pairs(held) do call('HSET', prefix .. 'dedup', key, id) end
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
