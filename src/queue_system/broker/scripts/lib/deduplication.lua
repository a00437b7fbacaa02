-- The deduplication keys, and who holds them.
-- Owns      `dedup`: deduplication key → id of an operation
-- Uses      prefix records
-- Invariant a key whose operation has ended, is unknown, or was not touched for a key's lifetime is free.

local function dedup() return prefix() .. 'dedup' end

-- The other live operation that holds a key; nil if there is none.
local function live_holder(key, id, lifetime_ms, at_ms)
  local holder = redis.call('HGET', dedup(), key)
  if not holder or holder == id then return nil end
  local status, _, touched_ms = read_record(holder)
  return is_live(status) and tonumber(touched_ms) + lifetime_ms > at_ms and holder or nil
end
