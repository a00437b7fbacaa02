-- Finds dead letters near the place where they were read, and removes them.
-- Owns      ARGV 1 to 5 of the scripts that use it: 1 "failures" or "system_errors" · 2 id of the call
--           3 number of this request in the call
--           4 lowest and 5 highest place at which to look, counted from the list's old end, the oldest letter being 0
-- Uses      prefix answers
-- Invariant sent again with the same call and number it removes nothing; a letter that is not found as read stays.

local letters, answers = prefix() .. ARGV[1], answer_key(ARGV[2])
local request, lowest, highest = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local answered = earlier_answer(redis.call('GET', answers), request)

-- Returns what finds a letter's place, each place once; nil where the letter is gone.
local function finder()
  local there, places = redis.call('LRANGE', letters, -highest - 1, -lowest - 1), {}
  for i, letter in ipairs(there) do
    places[letter] = places[letter] or {}
    table.insert(places[letter], lowest + #there - i)
  end
  return function(letter) return places[letter] and table.remove(places[letter]) end
end

-- Removes what lies at some places: one walk from the nearer end for all of them.
local function remove(places)
  redis.call('LTRIM', letters, 0, -1) -- not subject to maxmemory, so what follows is not either
  if #places == 0 then return end
  local mark = '\0' .. ARGV[2] .. ' ' .. ARGV[3]
  for _, place in ipairs(places) do redis.call('LSET', letters, -place - 1, mark) end
  local is_old = lowest < redis.call('LLEN', letters) - highest
  redis.call('LREM', letters, is_old and -#places or #places, mark)
end

local function answer_with(answer)
  remember(redis.call, answers, request, answer)
  return answer
end
