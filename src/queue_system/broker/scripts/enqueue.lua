-- Adds new operations to one queue: record, deduplication, list or delayed set, ready index, wake-up markers, counter.
-- KEYS      1 prefix of every key
-- ARGV      1 priority · 2 name of the queue · 3 delay in ms · 4 lifetime of a deduplication key in ms, or "" for none
--           5 nonce of the call, then for each operation: id · item, and unless 4 is "" its deduplication key, or ""
-- Reply     how many, if all are queued; else an entry for each: 1 queued · 0 the id is taken · the id that holds the key
-- Uses      choose records deduplication delayed values queues ready wake counters numbers time states
-- Invariant sent again with the same nonce it adds nothing; refused by maxmemory or a foreign type, it changes nothing.
local call, pcall = redis.call, redis.pcall
local priority, name, delay_ms, nonce = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[5]
local due_ms = now_ms + delay_ms
local queue, status = priority .. ':' .. name, delay_ms > 0 and DELAYED or QUEUED
local header = record_head(status, nonce, due_ms, queue, '')
-- What a delayed one's record says besides the due time: no execution yet, and when it was enqueued.
local rest = delay_ms > 0 and record_rest('0', string.format('%d', now_ms), '') or ''
local list, ready = prefix() .. queue, ready_index(priority)
local careful, items, writes, answers, held, pushed, indexed, written = ARGV[4] ~= '', {}, {}, nil, nil, nil, nil, nil

if not careful then -- the usual case, at one command's price
  local record = header .. rest
  for i = 6, #ARGV, 2 do
    writes[#writes + 1] = records .. ARGV[i]
    writes[#writes + 1] = record
    items[#items + 1] = ARGV[i + 1]
  end
  if #items > 1 then
    local seen = {}
    for i = 6, #ARGV, 2 do
      careful = careful or seen[ARGV[i]]
      seen[ARGV[i]] = true
    end
  end
end
repeat
  if careful then
    items, writes, answers, held = choose(nonce, now_ms, header, rest)
    if #items == 0 then return answers end
  end
  if delay_ms > 0 then -- before the first write, to see the types
    written = pcall('ZCARD', delayed_key())
    if type(written) == 'number' then written = pcall('SCARD', registry()) end
  else
    written = pcall('LPUSH', list, unpack(items))
    pushed = type(written) == 'number'
    if pushed then written = pcall('ZADD', ready, 'NX', string.format('%d%06d', time[1], time[2]), name) end
    indexed = pushed and written == 1
    if indexed then written = pcall('SCARD', registry()) end
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
  for key, id in pairs(held) do call('HSET', dedup(), key, id) end
end
if delay_ms > 0 then
  local key = delayed_key()
  for i = 1, #items do call('ZADD', key, whole(due_ms), join_member('0', join_value(queue, items[i]))) end
end
if indexed or delay_ms > 0 then -- the list is registered; hints: without them, workers look every 5 s
  call('SADD', registry(), list)
  wake_up(wake())
  wake_up(wake_key(name))
end
count('enqueued', #items)
return answers or #items
