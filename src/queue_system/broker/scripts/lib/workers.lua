-- The incarnations that are registered, and those that others take over.
-- Owns      `workers`: incarnation → count of its beats, a colon, its lease in ms; "dead:" before the name of one that is taken over
--           `incarnations`: incarnation → what the worker reports of itself
-- Uses      prefix
-- Invariant an incarnation is registered, or dead, or neither.

local workers = prefix() .. 'workers'

local known = prefix() .. 'incarnations'

local NO_LEASE = '0:0' -- the entry of one that has none

local function is_registered(incarnation) return redis.call('HEXISTS', workers, incarnation) == 1 end

-- The entry of an incarnation that has beaten once more.
local function next_entry(entry, lease_ms)
  local beats = tonumber(string.match(entry or '', '^(%d+):') or 0)
  return string.format('%.0f:%s', beats + 1, lease_ms)
end

local function dead(incarnation) return 'dead:' .. incarnation end

-- The incarnation of an entry, and whether it is dead.
local function incarnation_in(field)
  local name = string.match(field, '^dead:(.*)$')
  return name or field, name ~= nil
end
