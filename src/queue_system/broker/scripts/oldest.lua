-- Reads the item that each of some lists serves next to learn its age.
-- KEYS      1 prefix of every key
-- ARGV      lists, as "high:NAME"
-- Reply     for each list its last item, of one larger than 4 KiB the last 2 KiB; nil for an empty list, and for one
--           that the user may not read
-- Uses      prefix
-- Invariant it writes nothing; a key of the wrong type counts as empty.
local items = {}
for i, list in ipairs(ARGV) do
  local may = not redis.acl_check_cmd or redis.acl_check_cmd('LINDEX', prefix() .. list, -1) -- that is no denial to log
  local item = may and redis.pcall('LINDEX', prefix() .. list, -1)
  if type(item) ~= 'string' then item = false end
  if item and #item > 4096 then item = string.sub(item, -2048) end
  items[i] = item
end
return items
