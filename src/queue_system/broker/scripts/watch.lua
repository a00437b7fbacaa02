-- Reads all incarnations, and shows the others that somebody watches them.
-- KEYS      1 prefix of every key
-- ARGV      1 a sign that differs from the last one ("": the caller is not fit to take over, and shows nothing)
-- Reply     {incarnation, entry...}
-- Uses      workers
-- Invariant it changes nothing but the sign.
local entries = redis.call('HGETALL', workers)
if ARGV[1] ~= '' then
  redis.call('DEL', prefix() .. 'watched') -- not subject to maxmemory, so what follows is not either
  redis.call('SET', prefix() .. 'watched', ARGV[1])
end
return entries
