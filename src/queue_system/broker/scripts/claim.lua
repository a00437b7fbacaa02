-- Promotes what is due, then moves ready items in flight, by priority and in turn among queues, each under a fresh token.
-- KEYS      1 prefix of every key
-- ARGV      1 incarnation · 2 claim id, ending in a growing number · 3 how many · 4 a value to take in flight instead of popping ("" for none)
--           5 size of the largest item that is expected · 6 of the largest that is sent · 7 for how many ms a larger one is kept
--           then the names of the queues served (none: all), or of those left out, each behind a "!"
-- Reply     {"lost"}, or {"claimed", server ms, ms of the next due item or -1, 1 if servable items remain, 2 if only left-out ones do,
--           keys dropped for their type, first token, size of the largest item, value...}; a value is "high:NAME\n" + item;
--           tokens are consecutive; without values, the first token is the one that follows the last token given out
-- Uses      aside.lua
-- Invariant a lost claim takes nothing, and passes on the wake-up that it may have used; the same claim id again gives the same values that are still in flight, an earlier one that comes late takes
--           nothing; an item is never outside both places. About 8 MiB are promoted, and about as many popped. As long as
--           more is due than was promoted, which may be of any priority, only what is high is popped.
local prefix, incarnation, claim_id, wanted, adopted = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local largest, most_sent, kept_ms, first_name = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], 8
local MOST_BYTES, MOST_DUE, STEP, UNSEEN = 8388608, 1000, 16, 8
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local now_us = time[1] * 1000000 + time[2]
local inflight, delayed, wake = prefix .. 'inflight:' .. incarnation, prefix .. 'delayed', prefix .. 'wake'
local PRIORITIES = {'high', 'normal', 'low'}

local serves_named = ARGV[first_name] and string.sub(ARGV[first_name], 1, 1) ~= '!'
if redis.call('HEXISTS', prefix .. 'workers', incarnation) == 0 then
  redis.pcall('ZREM', wake, '') -- a write that maxmemory allows allows the next
  for _, priority in ipairs(adopted == '' and PRIORITIES or {}) do -- what has woken this one is for whoever may take it
    local index = prefix .. 'ready:' .. priority
    local ready = redis.pcall('ZCARD', index)
    if not serves_named and type(ready) == 'number' and ready > 0 then redis.pcall('ZADD', wake, 0, 'r') end
    for i = serves_named and first_name or #ARGV + 1, #ARGV do
      if type(redis.pcall('ZSCORE', index, ARGV[i])) == 'string' then redis.pcall('ZADD', wake .. ':' .. ARGV[i], 0, 'r') end
    end
  end
  return {'lost'}
end
local previous = redis.call('HGET', inflight, '#claim')
local MOST = 2 ^ 52 -- numbers stay exact far below it, and tokens, which are of the size of now_us, too
local last_token = tonumber(redis.call('GET', prefix .. 'token') or 0) or 0
if not (last_token >= 0 and last_token < MOST and last_token % 1 == 0) then last_token = 0 end
if last_token == 0 then -- lost or broken: no token may be given out twice
  for _, field in ipairs(redis.call('HKEYS', inflight)) do
    local token = tonumber(string.match(field, '^%d+$'))
    if token and token < MOST then last_token = math.max(last_token, token) end
  end
end
local values, wrong, first_token, fresh_token = {}, {}, last_token + 1, math.max(last_token + 1, now_us)
local spent, seen = 0, 0

local function number(value) return string.format('%d', value) end -- exact below 2^53

local function is_earlier(id, than) -- only ids of one series, which differ in the number at their end, have an order
  local series, number_of = string.match(id, '^(.-)(%d+)$')
  local other, number_of_other = string.match(than or '', '^(.-)(%d+)$')
  return series ~= nil and series == other and tonumber(number_of) < tonumber(number_of_other)
end

local function size(command, key)
  local n = redis.pcall(command, key)
  return type(n) == 'number' and n or 0
end

local function replay(first, count)
  first_token = first
  for start = first, first + count - 1, 500 do
    local tokens = {}
    for token = start, math.min(start + 499, first + count - 1) do tokens[#tokens + 1] = number(token) end
    for _, value in ipairs(redis.call('HMGET', inflight, unpack(tokens))) do values[#values + 1] = value end
  end
end

local function next_due_ms()
  local first = redis.pcall('ZRANGE', delayed, 0, 0, 'WITHSCORES')
  return not first.err and tonumber(first[2]) or nil
end

-- Takes items until so many bytes are spent, and returns how many; in the place of one too large to be sent goes what tells of it.
local function add(header, items, most_bytes)
  local count = #values
  for i = 1, #items do
    if spent >= most_bytes then return i - 1 end
    local item = items[i]
    local size = #item
    spent = spent + size
    if size > most_sent then
      item = set_aside(number(fresh_token + count), item, kept_ms)
    elseif size > seen then
      seen = size
      if size > largest then largest = size end
    end
    count = count + 1
    values[count] = header .. item
  end
  return #items
end

-- How many of so many items may be read at once, if they are as large as the largest so far.
local function fitting(count, bytes)
  return math.max(1, math.min(count, math.floor((MOST_BYTES - bytes) / math.max(1, largest))))
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
      local queue, item = string.match(member, '^[^\n]*\n([^\n]*)\n(.*)$')
      local priority = queue and string.match(queue, '^(%a+):[%w_.-]+$')
      if not items[queue or ''] and priority and (priority == 'high' or priority == 'normal' or priority == 'low')
        and type(redis.pcall('LLEN', prefix .. queue)) == 'number' then
        queues[#queues + 1] = queue
        items[queue] = {}
      end
      if queue and items[queue] then
        table.insert(items[queue], item)
      else -- no list can hold it: it goes in flight at once, and the worker decides
        add((queue or '') .. '\n', {item or member}, math.huge)
      end
    end
    count, read, step = count + #due, #due == step, fitting(math.min(STEP, MOST_DUE - count), bytes)
  until not read or count >= MOST_DUE or bytes >= MOST_BYTES
  for _, queue in ipairs(queues) do
    local priority, name = string.match(queue, '^(%a+):(.+)$')
    redis.call('LPUSH', prefix .. queue, unpack(items[queue]))
    redis.pcall('SADD', prefix .. 'registry', prefix .. queue)
    redis.pcall('ZADD', prefix .. 'ready:' .. priority, 'NX', now_us, name)
    redis.pcall('ZADD', prefix .. 'wake:' .. name, 0, 'r')
    redis.pcall('ZADD', wake, 0, 'r')
  end
end

local function has_room() return #values < wanted and (spent == 0 or spent + largest < MOST_BYTES) end

-- How many to pop at once from a list that is as deep as that: the first alone, then few if one of them may be large.
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

local turn = now_us
local function take(priority, name, share)
  local index, queue = prefix .. 'ready:' .. priority, priority .. ':' .. name
  local list, header, popped = prefix .. queue, queue .. '\n', 0
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

local left_out, left_behind, serves_some = {}, false, false
for i = first_name, #ARGV do
  if string.byte(ARGV[i]) == 33 then left_out[string.sub(ARGV[i], 2)] = true else serves_some = true end -- 33 is "!"
end
local served -- the names as a set, made when it is needed

local function serve_all(priority)
  local index, passed = prefix .. 'ready:' .. priority, 0
  local queues, steps = size('ZCARD', index), 300
  while queues > 0 and steps > 0 and has_room() do
    local name = redis.call('ZRANGE', index, passed, passed)[1]
    if not name then break end
    if left_out[name] then
      passed, queues = passed + 1, queues - 1
      left_behind = left_behind or size('LLEN', prefix .. priority .. ':' .. name) > 0
    elseif not take(priority, name, math.ceil((wanted - #values) / queues)) then queues = queues - 1 end
    steps = steps - 1
  end
  return queues > 0
end

local function turns_of(index) -- the queues served that are ready, by turn
  local ready, turns = size('ZCARD', index), {}
  if ready == 0 then return turns end
  if ready <= 10 * #ARGV then -- one command for all is cheaper than one for each name
    if not served then
      served = {}
      for i = first_name, #ARGV do served[ARGV[i]] = true end
    end
    for start = 0, ready - 1, 1000 do
      for _, name in ipairs(redis.call('ZRANGE', index, start, start + 999)) do
        if served[name] then turns[#turns + 1] = name end
        if #turns == wanted + 256 then return turns end -- those behind are served, and their markers seen to, in their turn
      end
    end
    return turns
  end
  local scores = {}
  for i = first_name, #ARGV do
    local score = redis.call('ZSCORE', index, ARGV[i])
    if score and not scores[ARGV[i]] then
      scores[ARGV[i]] = tonumber(score)
      turns[#turns + 1] = ARGV[i]
    end
  end
  table.sort(turns, function(a, b) return scores[a] < scores[b] end)
  return turns
end

local function arm(markers, first, last) -- most of many lie there already
  local there = redis.pcall('EXISTS', unpack(markers, first, last))
  if there == last - first + 1 then return end
  for i = first, last do redis.pcall('ZADD', markers[i], 0, 'r') end
end

local function serve_some(priority)
  local turns, waiting = turns_of(prefix .. 'ready:' .. priority), {}
  for i, name in ipairs(turns) do
    local missing = wanted - #values
    if not has_room() or take(priority, name, math.ceil(missing / (#turns - i + 1))) then
      waiting[#waiting + 1] = prefix .. 'wake:' .. name
    end
  end
  for first = 1, #waiting, 128 do arm(waiting, first, math.min(first + 127, #waiting)) end
  return #waiting > 0
end

local more, due_ms = false, next_due_ms()
local replayed_id, replayed_first, replayed_count = string.match(previous or '', '^(%S+) (%d+) (%d+)$')
if replayed_id == claim_id and (tonumber(replayed_first) >= MOST or tonumber(replayed_count) > 10000) then
  replayed_id = nil -- no claim of ours was noted so
end
if replayed_id == claim_id then
  replay(tonumber(replayed_first), tonumber(replayed_count))
elseif not is_earlier(claim_id, replayed_id) then -- else it was held up on a lost connection, and sent again long ago
  if adopted ~= '' then
    redis.call('HDEL', inflight, '#claim') -- a write that maxmemory allows allows the next
    local queue, item = string.match(adopted, '^([^\n]*\n)(.*)$')
    add(queue or '', {item or adopted}, math.huge)
  else
    if due_ms and due_ms <= now_ms then
      promote()
      due_ms = next_due_ms()
    end
    local behind, serve = due_ms and due_ms <= now_ms, serves_some and serve_some or serve_all
    for _, priority in ipairs(behind and {'high'} or PRIORITIES) do more = serve(priority) or more end
    more = more or behind
  end
  if #values > 0 then
    first_token = fresh_token
    redis.call('SET', prefix .. 'token', number(first_token + #values - 1))
    local fields, filled = {'#claim', claim_id .. ' ' .. number(first_token) .. ' ' .. #values}, 2
    for i = 1, #values do
      fields[filled + 1] = number(first_token + i - 1)
      fields[filled + 2] = values[i]
      filled = filled + 2
      if filled >= 1000 or i == #values then
        redis.call('HSET', inflight, unpack(fields))
        fields, filled = {}, 0
      end
    end
  end
  if (more or left_behind) and not serves_some then redis.pcall('ZADD', wake, 0, 'r') end
end

local reply = {'claimed', now_ms, due_ms or -1, more and 1 or left_behind and 2 or 0, wrong, first_token, seen}
for i = 1, #values do reply[i + 7] = values[i] end
return reply
