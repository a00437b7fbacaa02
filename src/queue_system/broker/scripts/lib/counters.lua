-- The counters of the fleet.
-- Owns      `metrics`: event → how often
-- Uses      prefix numbers
-- Invariant a counter that cannot be written makes no script fail.

local function counters() return prefix() .. 'metrics' end

local function count(event, n) redis.pcall('HINCRBY', counters(), event, whole(n)) end
