-- Finds the other live operation that holds a deduplication key. Not a script of its own: it precedes those under Uses.
-- KEYS      1 prefix of every key
-- ARGV      as the script that uses it
-- Reply     none
-- Invariant a key whose operation has ended, is unknown, or was not touched for a key's lifetime is free.
local function live_holder(key, id, lifetime_ms, now_ms)
  local holder = redis.call('HGET', KEYS[1] .. 'dedup', key)
  if not holder or holder == id then return nil end
  local record = redis.pcall('GET', KEYS[1] .. 'operation:' .. holder)
  local status, touched_ms = string.match(type(record) == 'string' and record or '', '^(%a+)\t[^\t]*\t(%d+)')
  local live = status == 'queued' or status == 'delayed' or status == 'running'
  return live and tonumber(touched_ms) + lifetime_ms > now_ms and holder or nil
end
