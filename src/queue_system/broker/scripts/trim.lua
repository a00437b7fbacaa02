-- Drops dead letters that are older than they are kept.
-- KEYS      1 prefix of every key
-- ARGV      1 "failures" or "system_errors", then for each letter, the oldest first, how many older ones are kept, and
--           the letter as aged.lua reads it
-- Reply     letters dropped
-- Uses      prefix dead_letter_part counters
-- Invariant only a letter that is still the oldest but for those that are kept is dropped, so that no letter is looked
--           for in the list; each is counted.
local MARK = '\0trimmed'
local list, dropped = prefix() .. ARGV[1], 0
redis.call('LTRIM', list, 0, -1) -- not subject to maxmemory, so what follows is not either
for i = 2, #ARGV, 2 do
  local place = -tonumber(ARGV[i]) - 1
  local letter = redis.call('LINDEX', list, place)
  if letter and part(letter) == ARGV[i + 1] then
    if place ~= -1 then
      redis.call('LSET', list, place, MARK)
      redis.call('LREM', list, -1, MARK)
    else
      redis.call('RPOP', list)
    end
    dropped = dropped + 1
  end
end
if dropped > 0 then count('dead_letters_dropped', dropped) end
return dropped
