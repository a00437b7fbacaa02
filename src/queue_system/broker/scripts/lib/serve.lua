-- Pops what one queue has, as much as fits, and gives the queue its next turn.
-- Uses      haul values ready time
-- Invariant a queue leaves the index only with its last item; a list that is none is named, and stops nobody.

local UNSEEN = 8

local turn = now_us

-- How many to pop at once: the first alone, then few if one of them may be large.
local function portion(list, popped, share)
  if popped == 0 then return 1 end
  local count = fitting(share, spent)
  if count > UNSEEN then -- sizes may grow further down
    for _, place in ipairs({count, math.ceil(count / 2)}) do
      local item = redis.call('LINDEX', list, -place)
      if item and #item > largest then largest = #item end
    end
    count = fitting(share, spent)
  end
  return count
end

-- Whether the queue may have more.
local function serve(priority, name, share)
  local index, queue = ready_index(priority), priority .. ':' .. name
  local list, header, popped = prefix() .. queue, join_value(queue, ''), 0
  local depth = redis.pcall('LLEN', list)
  if type(depth) ~= 'number' then
    wrong[#wrong + 1] = list
    depth = 0
  end
  local most = math.min(share, depth)
  while popped < most and has_room() do
    local items = redis.call('RPOP', list, portion(list, popped, most - popped))
    local added = add(header, items, MOST_BYTES)
    for i = #items, added + 1, -1 do redis.call('RPUSH', list, items[i]) end -- larger than any that was seen: it goes back
    popped = popped + added
  end
  if popped == depth and depth < share then -- one that gave just what was asked for may have more by its next turn
    redis.call('ZREM', index, name)
    return false
  end
  turn = turn + 1
  redis.call('ZADD', index, turn, name)
  return true
end
