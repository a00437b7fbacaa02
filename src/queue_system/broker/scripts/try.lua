-- Tries commands without effect, to learn which of them the user may run. Runs under the flag no-writes, which its loader sets.
-- KEYS      1 prefix of every key
-- ARGV      for each command the number of its words, then the words
-- Reply     for each command the error, or ""
-- Invariant nothing is written: the server refuses every write, after it has looked at the user's rights.
local replies, i = {}, 1
while i <= #ARGV do
  local words = tonumber(ARGV[i])
  local reply = redis.pcall(unpack(ARGV, i + 1, i + words))
  replies[#replies + 1] = type(reply) == 'table' and reply.err or ''
  i = i + words + 1
end
return replies
