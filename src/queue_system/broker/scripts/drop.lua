-- Drops dead letters because an operator says so.
-- KEYS      1 prefix of every key
-- ARGV      1 to 5 as take.lua has them, then the letters
-- Reply     a string with one letter for each: "d" dropped · "g" gone, or not near its place
-- Uses      take.lua
-- Invariant sent again it drops nothing more and gives the same answer; each letter that goes is counted.
local before = earlier_answer()
if before then return before end
local find, places, codes = finder(), {}, {}
for i = 6, #ARGV do
  local place = find(ARGV[i])
  places[#places + 1] = place
  codes[#codes + 1] = place and 'd' or 'g'
end
take(places)
if #places > 0 then redis.pcall('HINCRBY', KEYS[1] .. 'metrics', 'dead_letters_dropped', #places) end
return remember(table.concat(codes))
