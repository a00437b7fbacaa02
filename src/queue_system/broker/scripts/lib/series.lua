-- The ids of claims and settlements: those of one incarnation form a series, told apart by the number at their end.
-- Owns      such an id
-- Invariant only ids of one series have an order.

local function is_earlier(id, than)
  local at = than and string.find(id, '%d+$')
  if not at or string.sub(id, 1, at - 1) ~= string.sub(than, 1, at - 1) then return false end
  local number = string.match(than, '^%d+$', at)
  return number ~= nil and tonumber(string.sub(id, at)) < tonumber(number)
end
