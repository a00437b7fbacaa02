-- Reads the lengths of a page of registered lists; the first page also carries what exists once.
-- KEYS      1 prefix of every key
-- ARGV      1 cursor ("0" to begin)
-- Reply     {next cursor, {list, length...}, then on the first page: failures, system errors, delayed, running, server ms,
--           {counter, value...}, live workers, {note of a queue that a worker leaves alone, until which ms...}}
-- Invariant it writes nothing; a key of the wrong type counts as empty.
local prefix, cursor = KEYS[1], ARGV[1]
local time = redis.call('TIME')

local function size(command, key)
  local n = redis.pcall(command, key)
  return type(n) == 'number' and n or 0
end

local page, lists = redis.pcall('SSCAN', prefix .. 'registry', cursor, 'COUNT', 500), {}
if page.err then page = {'0', {}} end
for _, list in ipairs(page[2]) do
  if string.sub(list, 1, #prefix) == prefix then
    lists[#lists + 1] = list
    lists[#lists + 1] = size('LLEN', list)
  end
end
if cursor ~= '0' then return {page[1], lists} end

local running, live, workers = 0, 0, redis.pcall('HKEYS', prefix .. 'workers')
for _, worker in ipairs(workers.err and {} or workers) do
  if not string.find(worker, '^dead:') then live = live + 1 end
  local inflight = prefix .. 'inflight:' .. string.gsub(worker, '^dead:', '')
  running = running + size('HLEN', inflight)
  for _, field in ipairs({'#claim', '#settle'}) do
    if redis.pcall('HEXISTS', inflight, field) == 1 then running = running - 1 end
  end
end
local counters = redis.pcall('HGETALL', prefix .. 'metrics')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local resting = redis.pcall('ZRANGEBYSCORE', prefix .. 'resting', now_ms - 10000, '+inf', 'WITHSCORES', 'LIMIT', 0, 200)
return {page[1], lists, size('LLEN', prefix .. 'failures'), size('LLEN', prefix .. 'system_errors'),
  size('ZCARD', prefix .. 'delayed'), running, now_ms, counters.err and {} or counters, live, resting.err and {} or resting}
