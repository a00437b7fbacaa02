-- Reads the oldest dead letters to learn their age.
-- KEYS      1 prefix of every key
-- ARGV      1 "failures" or "system_errors" · 2 how many of the oldest to pass over
-- Reply     up to 100 letters, the oldest first, of one larger than 64 KiB the last 4 KiB
-- Uses      prefix limits dead_letter_part
-- Invariant it writes nothing, and stops behind the letter with which it has read 8 MiB.
local list, passed, letters, bytes = prefix() .. ARGV[1], tonumber(ARGV[2]), {}, 0
while #letters < 100 and bytes < MOST_BYTES do
  local letter = redis.call('LINDEX', list, -passed - #letters - 1)
  if not letter then break end
  bytes = bytes + #letter
  letters[#letters + 1] = part(letter)
end
return letters
