-- Adds a dead letter, and drops the oldest beyond the cap.
-- Owns      `failures` and `system_errors`: letters, the newest first
-- Uses      prefix counters
-- Invariant at most 1,000 letters go at once, and each that goes is counted.

-- Whether an older letter went.
local function add_dead_letter(list, letter, most)
  local over = math.min(redis.call('LPUSH', prefix() .. list, letter) - most, 1000)
  if over <= 0 then return false end
  redis.call('LTRIM', prefix() .. list, 0, -over - 1)
  count('dead_letters_dropped', over)
  return true
end
