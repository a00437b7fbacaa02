-- Drops dead letters because an operator says so.
-- KEYS      1 prefix of every key
-- ARGV      1 to 5 as lib/dead_letter_places.lua has them, then the letters
-- Reply     a string with one code for each: "d" dropped · "g" gone, or not near its place
-- Uses      dead_letter_places counters
-- Invariant sent again it drops nothing more and gives the same answer; each letter that goes is counted.
if answered then return answered end
local find, places, codes = finder(), {}, {}
for i = 6, #ARGV do
  local place = find(ARGV[i])
  places[#places + 1] = place
  codes[#codes + 1] = place and 'd' or 'g'
end
remove(places)
if #places > 0 then count('dead_letters_dropped', #places) end
return answer_with(table.concat(codes))
