-- Reads the lengths of a page of registered lists; the first page also carries what exists once.
-- KEYS      1 prefix of every key
-- ARGV      1 cursor ("0" to begin)
-- Reply     {next cursor, {list, length...}, then on the first page: failures, system errors, delayed, running, server ms,
--           {counter, value...}, live workers, {note of a queue that a worker leaves alone, until which ms...}}
-- Uses      counters sizes queues workers inflight delayed resting time
-- Invariant it writes nothing; a key of the wrong type counts as empty.
local cursor = ARGV[1]
local page, lists = redis.pcall('SSCAN', registry(), cursor, 'COUNT', 500), {}
if page.err then page = {'0', {}} end
for _, list in ipairs(page[2]) do
  if queue_of(list) then
    lists[#lists + 1] = list
    lists[#lists + 1] = size('LLEN', list)
  end
end
if cursor ~= '0' then return {page[1], lists} end

local running, live, entries = 0, 0, redis.pcall('HKEYS', workers)
for _, field in ipairs(entries.err and {} or entries) do
  local incarnation, is_dead = incarnation_in(field)
  if not is_dead then live = live + 1 end
  local inflight = inflight_of(incarnation)
  local fields = size('HLEN', inflight)
  if fields > 0 then running = running + count_tokens(inflight, fields) end
end
local counted = redis.pcall('HGETALL', counters())
local rests = redis.pcall('ZRANGEBYSCORE', resting, now_ms - 10000, '+inf', 'WITHSCORES', 'LIMIT', 0, 200)
return {page[1], lists, size('LLEN', prefix() .. 'failures'), size('LLEN', prefix() .. 'system_errors'),
  size('ZCARD', delayed), running, now_ms, counted.err and {} or counted, live, rests.err and {} or rests}
