-- Pops what one queue has, as much as fits, and gives the queue its next turn.
-- Uses      haul values ready numbers time
-- Invariant a queue leaves the index only with its last item; a list that is none is named, and stops nobody.

local UNSEEN = 8

local turn = now_us

-- How many to pop at once: first one alone or, if it is known how large items are, few; then few if one may be large.
local function portion(list, popped, share)
  if popped == 0 then return largest > 0 and math.min(share, UNSEEN) or 1 end
  local count = fitting(share, spent)
  if count > UNSEEN then -- sizes may grow further down
    for _, place in ipairs({count, math.ceil(count / 2)}) do
      local item = redis.call('LINDEX', list, whole(-place))
      if item and #item > largest then largest = #item end
    end
    count = fitting(share, spent)
  end
  return count
end

-- Pops so many; nothing if the list is empty, or none.
local function pop(list, count)
  local items = redis.pcall('RPOP', list, whole(count))
  if not (items and items.err) then return items end
  if type(redis.pcall('LLEN', list)) == 'number' then return redis.call('RPOP', list, whole(count)) end -- it fails again
  wrong[#wrong + 1] = list
  return nil
end

-- Whether the queue may have more. One that is ready alone has no turn to wait for.
local function serve(priority, name, share, alone)
  local index, queue = ready_index(priority), priority .. ':' .. name
  local list, header, popped, ended = prefix() .. queue, join_value(queue, ''), 0, false
  while popped < share and not ended and has_room() do
    local count = portion(list, popped, share - popped)
    local items = pop(list, count) or {}
    local added = add(header, items, MOST_BYTES)
    for i = #items, added + 1, -1 do redis.call('RPUSH', list, items[i]) end -- larger than any that was seen: it goes back
    popped = popped + added
    ended = #items < count and added == #items
  end
  if ended then -- one that gave just what was asked for may have more by its next turn
    redis.call('ZREM', index, name)
    return false
  end
  if not alone then
    turn = turn + 1
    redis.call('ZADD', index, whole(turn), name)
  end
  return true
end
