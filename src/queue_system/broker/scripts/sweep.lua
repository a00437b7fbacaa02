-- Puts lists that were filled by a foreign LPUSH into the ready index, and wakes a worker for them.
-- KEYS      1 prefix of every key
-- ARGV      1 cursor ("0" to begin) · 2 how many ms must lie between two sweeps of the fleet
-- Reply     {next cursor, lists found}; the cursor is "0" at the end, "-1" when another worker has swept just now
-- Uses      queues ready wake time
-- Invariant one sweep for each interval and fleet, by the server's clock; it only adds to the index. What was indexed before
--           the clock was set back is served first, in its old order. A hundred empty lists cost one command.
local cursor, swept = ARGV[1], prefix() .. 'swept'

local last = redis.pcall('GET', swept)
local last_ms = type(last) == 'string' and tonumber(last) or 0
if cursor == '0' and now_ms - last_ms < tonumber(ARGV[2]) and last_ms <= now_ms then return {'-1', 0} end
local page, lists = redis.call('SSCAN', registry(), cursor, 'COUNT', 500), {} -- before the first write, to see its type
redis.call('DEL', swept) -- not subject to maxmemory, so what follows is not either
redis.call('SET', swept, string.format('%.0f', now_ms))

local function bring_back_to_the_present(index) -- a turn is a few us ahead of the clock at most
  local ahead = redis.pcall('ZRANGEBYSCORE', index, string.format('(%.0f', now_us + 1000000), '+inf', 'WITHSCORES', 'LIMIT', 0, 500)
  for i = 1, ahead.err and 0 or #ahead, 2 do redis.call('ZADD', index, string.format('%.17g', ahead[i + 1] / 2), ahead[i]) end
end

local found = 0
local function index_list(list)
  local priority, name = split_queue(queue_of(list))
  if not priority then return end
  local index, length = ready_index(priority), redis.pcall('LLEN', list)
  if type(length) == 'number' and length > 0 and not redis.pcall('ZSCORE', index, name) then
    redis.call('ZADD', index, now_us, name)
    wake_workers(name)
    found = found + 1
  end
end

local function index_filled(lists, first, last)
  if redis.call('EXISTS', unpack(lists, first, last)) == 0 then return end
  if first == last then return index_list(lists[first]) end
  local middle = math.floor((first + last) / 2)
  index_filled(lists, first, middle)
  index_filled(lists, middle + 1, last)
end

if cursor == '0' and redis.call('EXISTS', ready_index('high'), ready_index('normal'), ready_index('low')) > 0 then
  for _, priority in ipairs(PRIORITIES) do bring_back_to_the_present(ready_index(priority)) end
end
for _, list in ipairs(page[2]) do
  if queue_of(list) then lists[#lists + 1] = list end
end
for first = 1, #lists, 128 do index_filled(lists, first, math.min(first + 127, #lists)) end
return {page[1], found}
