-- Forgets the names of queues that nobody has used for long, page by page: their lists in the registry, and their wake-up markers.
-- KEYS      1 prefix of every key
-- ARGV      1 cursor ("0" to begin) · 2 how many ms must lie between two passes of the fleet · 3 after how many ms without use
-- Reply     {next cursor, names forgotten}; the cursor is "0" at the end, "-1" when another worker has passed lately
-- Invariant a name goes only while its three lists are empty, with its entries in the index: the next enqueue enters all of them
--           anew. Since its last use, at least two passes have seen it empty, and the time given lies between them.
local prefix, cursor, drained = KEYS[1], ARGV[1], KEYS[1] .. 'drained'
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local registry = prefix .. 'registry'

local function since(name)
  local score = redis.call('ZSCORE', drained, name)
  local ms = score and tonumber(score)
  return ms and ms <= now_ms and ms -- else the clock was set back
end

local last_ms = since('')
if cursor == '0' and last_ms and now_ms - last_ms < tonumber(ARGV[2]) then return {'-1', 0} end
redis.call('SCARD', registry)
redis.call('ZREM', drained, ' ') -- no name; not subject to maxmemory, so what follows is not either
if cursor == '0' then redis.call('ZADD', drained, now_ms, '') end

local page, seen, forgotten = redis.call('SSCAN', registry, cursor, 'COUNT', 200), {}, 0
for _, list in ipairs(page[2]) do
  local priority, name = string.match(string.sub(list, 1, #prefix) == prefix and string.sub(list, #prefix + 1) or '', '^(%a+):([%w_.-]+)$')
  if (priority == 'high' or priority == 'normal' or priority == 'low') and not seen[name] then
    seen[name] = true
    local lists = {prefix .. 'high:' .. name, prefix .. 'normal:' .. name, prefix .. 'low:' .. name}
    local empty_since = since(name)
    if redis.call('EXISTS', unpack(lists)) > 0 then
      redis.call('ZREM', drained, name)
    elseif redis.call('DEL', prefix .. 'wake:' .. name) == 1 or not empty_since then -- a marker tells of a use since the last pass
      redis.call('ZADD', drained, now_ms, name)
    elseif now_ms - empty_since >= tonumber(ARGV[3]) then
      redis.call('SREM', registry, unpack(lists))
      redis.call('ZREM', drained, name)
      for _, each in ipairs({'high', 'normal', 'low'}) do redis.pcall('ZREM', prefix .. 'ready:' .. each, name) end
      forgotten = forgotten + 1
    end
  end
end
return {page[1], forgotten}
