-- An item on its way, with the queue that it came from.
-- Owns      value, as it lies in flight: queue, line feed, item · member of the delayed set: tag, line feed, value
-- Invariant the item is passed on byte for byte; a tag only keeps equal items apart.

-- Queue and item; nothing if there is no queue.
local function split_value(value) return string.match(value, '^([^\n]*)\n(.*)$') end

local function join_value(queue, item) return queue .. '\n' .. item end

local function split_member(member) return string.match(member, '^[^\n]*\n([^\n]*)\n(.*)$') end

local function join_member(tag, value) return tag .. '\n' .. value end
