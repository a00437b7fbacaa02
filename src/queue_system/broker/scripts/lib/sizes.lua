-- How long a key is that anybody may have replaced.
-- Invariant a key of the wrong type counts as empty.

local function size(command, key)
  local n = redis.pcall(command, key)
  return type(n) == 'number' and n or 0
end
