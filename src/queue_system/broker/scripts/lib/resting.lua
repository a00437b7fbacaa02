-- The queues that workers leave alone because they cannot resolve what these hold.
-- Owns      `resting`: name of the queue, tab, worker, tab, reason → until when, in ms of the server's time
-- Uses      prefix
-- Invariant neither a queue's name nor a worker's holds a tab.

local resting = prefix() .. 'resting'

local function note_of_rest(name, worker, reason) return table.concat({name, worker, reason}, '\t') end
