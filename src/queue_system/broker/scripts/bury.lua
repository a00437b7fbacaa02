-- Adds a dead letter, drops the oldest beyond the cap. Not a script of its own: it precedes those that name it under Uses.
-- KEYS      1 prefix of every key
-- ARGV      as the script that uses it
-- Reply     none; `bury` returns whether an older letter went
-- Invariant at most 1,000 letters go at once, and each that goes is counted.
local function bury(list, letter, most)
  local over = math.min(redis.call('LPUSH', KEYS[1] .. list, letter) - most, 1000)
  if over <= 0 then return false end
  redis.call('LTRIM', KEYS[1] .. list, 0, -over - 1)
  redis.pcall('HINCRBY', KEYS[1] .. 'metrics', 'dead_letters_dropped', over)
  return true
end
