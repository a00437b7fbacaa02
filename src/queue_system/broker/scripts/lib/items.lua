-- The one thing that a script may read from an item.
-- Owns      the beginning of an item
-- Invariant an id holds neither a quote nor a backslash, so it is found without reading JSON.

-- The id of an operation; nothing if the item does not begin with it.
local function id_of(item) return string.match(item, '^{"operation_id":"([^"\\]+)"') end
