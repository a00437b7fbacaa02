-- Declares an incarnation dead, if it has not beaten since it was last observed. The first half of a reclaim.
-- KEYS      1 prefix of every key
-- ARGV      1 incarnation · 2 its entry as observed ("counter:lease_ms")
-- Reply     1 declared dead · 0 it beat, left or was declared dead meanwhile
-- Uses      workers
-- Invariant from here on the incarnation is unregistered: its claims, settlements and beats are answered "lost".
if redis.call('HGET', workers, ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', workers, ARGV[1]) -- not subject to maxmemory, so what follows is not either
redis.call('HSET', workers, dead(ARGV[1]), ARGV[2])
return 1
