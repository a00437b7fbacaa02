-- Moves what is due to the lists.
-- Uses      haul values delayed queues announce limits time
-- Invariant at most 1,000 items or about 8 MiB are moved; what no list can hold goes in flight, and the worker decides.

local MOST_DUE = 1000

local STEP = 16

local function next_due_ms()
  local first = redis.pcall('ZRANGE', delayed, '0', '0', 'WITHSCORES')
  return not first.err and tonumber(first[2]) or nil
end

local function promote()
  local queues, items, count, bytes, step, read = {}, {}, 0, 0, 1, nil
  repeat
    local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now_ms, 'LIMIT', 0, step)
    if #due == 0 then break end
    redis.call('ZREMRANGEBYRANK', delayed, 0, #due - 1)
    for _, member in ipairs(due) do
      bytes = bytes + #member
      if #member > largest then largest = #member end
      local queue, item = split_member(member)
      if queue and not items[queue] and split_queue(queue) and type(redis.pcall('LLEN', prefix() .. queue)) == 'number' then
        queues[#queues + 1] = queue
        items[queue] = {}
      end
      if queue and items[queue] then
        table.insert(items[queue], item)
      else
        add(join_value(queue or '', ''), {item or member}, math.huge)
      end
    end
    count, read, step = count + #due, #due == step, fitting(math.min(STEP, MOST_DUE - count), bytes)
  until not read or count >= MOST_DUE or bytes >= MOST_BYTES
  for _, queue in ipairs(queues) do
    redis.call('LPUSH', prefix() .. queue, unpack(items[queue]))
    announce(queue, split_queue(queue))
  end
end
