-- Notes which queues a worker leaves alone because it cannot resolve what they hold, and which it serves again.
-- KEYS      1 prefix of every key
-- ARGV      1 worker, then for each queue: its name · for how many ms, or "0" if it is served again · the reason
-- Reply     how many notes were taken
-- Uses      resting counters time
-- Invariant sent again it changes nothing but the time; at most 1,000 notes stay, and none for more than a minute past its rest.
local begun = 0
redis.call('ZREMRANGEBYSCORE', resting, '-inf', now_ms - 60000) -- not subject to maxmemory, so what follows is not either
for i = 2, #ARGV, 3 do
  local note, rest_ms = note_of_rest(ARGV[i], ARGV[1], ARGV[i + 2]), tonumber(ARGV[i + 1])
  if rest_ms == 0 then
    redis.call('ZREM', resting, note)
  else
    redis.call('ZADD', resting, now_ms + rest_ms, note)
    begun = begun + 1
  end
end
redis.call('ZREMRANGEBYRANK', resting, 0, -1001)
redis.call('PEXPIRE', resting, 120000)
if begun > 0 then count('queue_rests', begun) end
return (#ARGV - 1) / 3
