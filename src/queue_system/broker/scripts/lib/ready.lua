-- The index of the queues that hold items.
-- Owns      `ready:PRIORITY`: name of a queue → its turn, in us of the server's time
-- Uses      prefix
-- Invariant a queue that is indexed already keeps its turn.

local function ready_index(priority) return prefix() .. 'ready:' .. priority end
