-- Finds dead letters near the place where they were read, and removes them. Not a script of its own: it precedes those under Uses.
-- KEYS      1 prefix of every key
-- ARGV      1 "failures" or "system_errors" · 2 id of the call · 3 number of this request in the call
--           4 lowest and 5 highest place at which to look, counted from the list's old end, the oldest letter being 0
-- Reply     none
-- Invariant sent again with the same call and number it removes nothing; a letter that is not found as read stays.
local letters, answers = KEYS[1] .. ARGV[1], KEYS[1] .. 'answer:' .. ARGV[2]
local request, lowest, highest = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

-- The answer to this request if it was run before, nil if not; a request that others followed is no longer answered.
local function earlier_answer()
  local last, answer = string.match(redis.call('GET', answers) or '', '^(%d+) (%a*)$')
  if not last or tonumber(last) < request then return nil end
  return tonumber(last) == request and answer or ''
end

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
local function take(places)
  redis.call('LTRIM', letters, 0, -1) -- not subject to maxmemory, so what follows is not either
  if #places == 0 then return end
  local mark = '\0' .. ARGV[2] .. ' ' .. ARGV[3]
  for _, place in ipairs(places) do redis.call('LSET', letters, -place - 1, mark) end
  local is_old = lowest < redis.call('LLEN', letters) - highest
  redis.call('LREM', letters, is_old and -#places or #places, mark)
end

local function remember(answer)
  redis.call('SET', answers, string.format('%d %s', request, answer), 'PX', 300000)
  return answer
end
