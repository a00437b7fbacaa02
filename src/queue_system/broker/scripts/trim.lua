-- Drops dead letters that are older than they are kept.
-- KEYS      1 prefix of every key
-- ARGV      1 "failures" or "system_errors", then the letters as read from the list's old end
-- Reply     letters dropped
-- Invariant only letters that are still there, as read, are dropped; each is counted.
local list, dropped = KEYS[1] .. ARGV[1], 0
for i = 2, #ARGV do dropped = dropped + redis.call('LREM', list, -1, ARGV[i]) end
if dropped > 0 then redis.pcall('HINCRBY', KEYS[1] .. 'metrics', 'dead_letters_dropped', dropped) end
return dropped
