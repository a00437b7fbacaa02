-- Forgets the names of queues that nobody has used for long, page by page: their lists in the registry, and their wake-up markers.
-- KEYS      1 prefix of every key
-- ARGV      1 cursor ("0" to begin) · 2 how many ms must lie between two passes of the fleet · 3 after how many ms without use
-- Reply     {next cursor, names forgotten}; the cursor is "0" at the end, "-1" when another worker has passed lately
-- Uses      queues ready wake time
-- Invariant a name goes only while its three lists are empty, with its entries in the index: the next enqueue enters all of them
--           anew. Since its last use, at least two passes have seen it empty, and the time given lies between them.
local cursor, drained = ARGV[1], prefix() .. 'drained'

local function since(name)
  local score = redis.call('ZSCORE', drained, name)
  local ms = score and tonumber(score)
  return ms and ms <= now_ms and ms -- else the clock was set back
end

local last_ms = since('')
if cursor == '0' and last_ms and now_ms - last_ms < tonumber(ARGV[2]) then return {'-1', 0} end
redis.call('SCARD', registry())
redis.call('ZREM', drained, ' ') -- no name; not subject to maxmemory, so what follows is not either
if cursor == '0' then redis.call('ZADD', drained, now_ms, '') end

local page, seen, forgotten = redis.call('SSCAN', registry(), cursor, 'COUNT', 200), {}, 0
for _, list in ipairs(page[2]) do
  local _, name = split_queue(queue_of(list) or '')
  if name and not seen[name] then
    seen[name] = true
    local lists = lists_of(name)
    local empty_since = since(name)
    if redis.call('EXISTS', unpack(lists)) > 0 then
      redis.call('ZREM', drained, name)
    elseif redis.call('DEL', wake_key(name)) == 1 or not empty_since then -- a marker shows a use since the last pass
      redis.call('ZADD', drained, now_ms, name)
    elseif now_ms - empty_since >= tonumber(ARGV[3]) then
      redis.call('SREM', registry(), unpack(lists))
      redis.call('ZREM', drained, name)
      for _, priority in ipairs(PRIORITIES) do redis.pcall('ZREM', ready_index(priority), name) end
      forgotten = forgotten + 1
    end
  end
end
return {page[1], forgotten}
