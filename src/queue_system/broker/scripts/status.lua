-- Reads the lengths of a page of registered lists and what a page of workers holds; the first also carries what exists once.
-- KEYS      1 prefix of every key
-- ARGV      1 cursor of the lists · 2 cursor of the workers; both "0" to begin, and "" where there are no more
-- Reply     first page: {next cursor of the lists, {list, length...}, failures, system errors, delayed, running, server ms,
--           {counter, value...}, live workers, {note of a queue that a worker leaves alone, until which ms...}, next cursor of the
--           workers}; later: {next cursor, {list, length...}, next cursor of the workers, running, live workers}
-- Uses      counters sizes queues workers inflight delayed resting time
-- Invariant it writes nothing; a key of the wrong type counts as empty. A page costs the same however many workers there are; one
--           that the scan gives twice, as while many register, counts twice.
local cursor, cursor_of_workers = ARGV[1], ARGV[2]

local function page_of_lists()
  local page, lists = redis.pcall('SSCAN', registry(), cursor, 'COUNT', 500), {}
  if page.err then return '0', lists end
  for _, list in ipairs(page[2]) do
    if queue_of(list) then
      lists[#lists + 1] = list
      lists[#lists + 1] = size('LLEN', list)
    end
  end
  return page[1], lists
end

-- The next cursor, and the fields. Users that were set up before HSCAN was needed read all fields at once.
local function scan_workers()
  local page = redis.pcall('HSCAN', workers, cursor_of_workers, 'COUNT', 500)
  if page.err then
    local fields = redis.pcall('HKEYS', workers)
    return '0', fields.err and {} or fields
  end
  local fields = {}
  for i = 1, #page[2], 2 do fields[#fields + 1] = page[2][i] end
  return page[1], fields
end

local function page_of_workers()
  local next_cursor, fields = scan_workers()
  local running, live = 0, 0
  for _, field in ipairs(fields) do
    local incarnation, is_dead = incarnation_in(field)
    if not is_dead then live = live + 1 end
    local inflight = inflight_of(incarnation)
    local held = size('HLEN', inflight)
    if held > 0 then running = running + count_tokens(inflight, held) end
  end
  return next_cursor, running, live
end

local next_cursor, lists, next_of_workers, running, live = '0', {}, '0', 0, 0
if cursor ~= '' then next_cursor, lists = page_of_lists() end
if cursor_of_workers ~= '' then next_of_workers, running, live = page_of_workers() end
if cursor ~= '0' or cursor_of_workers ~= '0' then return {next_cursor, lists, next_of_workers, running, live} end

local counted = redis.pcall('HGETALL', counters())
local rests = redis.pcall('ZRANGEBYSCORE', resting, now_ms - 10000, '+inf', 'WITHSCORES', 'LIMIT', 0, 200)
return {next_cursor, lists, size('LLEN', prefix() .. 'failures'), size('LLEN', prefix() .. 'system_errors'), size('ZCARD', delayed),
  running, now_ms, counted.err and {} or counted, live, rests.err and {} or rests, next_of_workers}
