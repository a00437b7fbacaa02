-- What a claim has taken so far, and for how much more it has room.
-- Uses      claim_request values limits numbers oversized
-- Invariant about 8 MiB are taken; what is too large to be sent stays behind, and a stub goes in its place.

local values, wrong, first_token, fresh_token, spent, seen = {}, {}, nil, nil, 0, 0

local left_behind = false -- whether items wait in a queue that this claim leaves out

-- Takes items until the given bytes are spent, and returns how many it took.
local function add(header, items, most_bytes)
  local count = #values
  for i = 1, #items do
    if spent >= most_bytes then return i - 1 end
    local item = items[i]
    local size = #item
    spent = spent + size
    if size > most_sent then
      item = set_aside(whole(fresh_token + count), item, kept_ms)
    elseif size > seen then
      seen = size
      if size > largest then largest = size end
    end
    count = count + 1
    values[count] = header .. item
  end
  return #items
end

-- How many items, of a given number, may be read at once if they are as large as the largest so far.
local function fitting(count, bytes) return math.max(1, math.min(count, math.floor((MOST_BYTES - bytes) / math.max(1, largest)))) end

local function has_room() return #values < wanted and (spent == 0 or spent + largest < MOST_BYTES) end

-- Takes a value that was given instead of popping.
local function adopt(inflight)
  redis.call('HDEL', inflight, '#claim') -- a write that maxmemory allows allows the next
  local queue, item = split_value(adopted)
  add(queue and join_value(queue, '') or '', {item or adopted}, math.huge)
end

-- Takes what an earlier claim took and is still in flight.
local function replay(inflight, first, count)
  first_token = first
  for start = first, first + count - 1, 500 do
    local tokens = {}
    for token = start, math.min(start + 499, first + count - 1) do tokens[#tokens + 1] = whole(token) end
    for _, value in ipairs(redis.call('HMGET', inflight, unpack(tokens))) do values[#values + 1] = value end
  end
end
