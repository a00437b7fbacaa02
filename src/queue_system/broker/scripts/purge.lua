-- Removes items of one queue with their records and deduplication keys, at most 1,000 or about 8 MiB a call.
-- KEYS      1 prefix of every key
-- ARGV      1 queue ("high:NAME") · 2 "#", id of the call, a space and the number of this request in it ("" for none)
--           then members of the delayed set to remove (none: items of the list are removed)
-- Reply     items removed; 0 when none is left
-- Uses      queues ready values items records delayed release_key changes counters answers limits
-- Invariant sent again with the same call and number, it removes nothing more and gives the same answer;
--           a deduplication key goes only while it still names the removed operation.
local queue = ARGV[1]
local priority, name = split_queue(queue)
local list = prefix() .. queue
redis.call('LLEN', list)
redis.call('ZCARD', delayed)
redis.call('HLEN', dedup())

local call, request = string.match(ARGV[2] or '', '^#(%S+) (%d+)$')
if call then
  local answered = earlier_answer(redis.pcall('GET', answer_key(call)), tonumber(request))
  if answered then return tonumber(answered) or 0 end
end

local function forget(item)
  local id = id_of(item)
  if not id then return end
  local status, _, _, _, key = read_record(id)
  if is_final(status) then return end -- it was a callback item
  release_key(key or '', id)
  redis.call('DEL', record_key(id))
  tell(id)
end

local removed = 0
if #ARGV > 2 then
  for i = 3, #ARGV do
    if redis.call('ZREM', delayed, ARGV[i]) == 1 then
      removed = removed + 1
      local _, item = split_member(ARGV[i])
      forget(item or '')
    end
  end
else
  local bytes, largest, step = 0, 1, 1
  while removed < 1000 and bytes < MOST_BYTES do
    local items = redis.call('RPOP', list, step)
    if not items then break end
    removed = removed + #items
    for _, item in ipairs(items) do
      bytes, largest = bytes + #item, math.max(largest, #item)
      forget(item)
    end
    step = math.max(1, math.min(16, 1000 - removed, math.floor((MOST_BYTES - bytes) / largest)))
  end
  if redis.call('EXISTS', list) == 0 then redis.pcall('ZREM', ready_index(priority), name) end
end
if removed > 0 then count('purged', removed) end
if removed > 0 and call then remember(redis.pcall, answer_key(call), tonumber(request), removed) end
return removed
