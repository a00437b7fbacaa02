-- The markers that wake idle workers: one for those that serve all queues, and one for each queue.
-- Owns      `wake` and `wake:NAME`, with the one member "r"
-- Uses      prefix
-- Invariant nothing here makes a script fail: without a marker, workers look every 5 s.

local function wake() return prefix() .. 'wake' end

local function wake_up(marker) redis.pcall('ZADD', marker, '0', 'r') end

local function wake_key(name) return prefix() .. 'wake:' .. name end

local function wake_workers(name)
  wake_up(wake())
  wake_up(wake_key(name))
end
