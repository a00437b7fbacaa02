-- The ids of claims and settlements: those of one incarnation form a series, told apart by the number at their end.
-- Owns      such an id
-- Invariant only ids of one series have an order.

local function is_earlier(id, than)
  local series, number = string.match(id, '^(.-)(%d+)$')
  local other, its_number = string.match(than or '', '^(.-)(%d+)$')
  return series ~= nil and series == other and tonumber(number) < tonumber(its_number)
end
