-- The operations that are due later.
-- Owns      `delayed`: member → when it is due, in ms of the server's time
-- Uses      prefix
-- Invariant equal items lie there side by side, under different tags.

local function delayed_key() return prefix() .. 'delayed' end

local delayed = delayed_key() -- for those that always need it
