-- Registers an incarnation, shows that it lives, or signs it off.
-- KEYS      1 prefix of every key
-- ARGV      1 "register", "beat" or "leave" · 2 incarnation · 3 lease in ms · 4 what the worker reports of itself
-- Reply     {1 alive or 0 unregistered, tokens in flight, registered incarnations}
-- Uses      workers inflight
-- Invariant a beat never brings back an incarnation that was reclaimed; one that holds tokens does not leave.
local mode, incarnation, lease_ms = ARGV[1], ARGV[2], ARGV[3]
local inflight = inflight_of(incarnation)
local current, reclaimed = unpack(redis.call('HMGET', workers, incarnation, dead(incarnation)))
local tokens = redis.call('HLEN', inflight)
if tokens > 0 then tokens = count_tokens(inflight, tokens) end
if reclaimed or (not current and mode ~= 'register') then return {0, tokens, redis.call('HLEN', workers)} end
if mode == 'leave' then
  tokens = count_tokens_exactly(inflight)
  if tokens == 0 then
    redis.call('HDEL', workers, incarnation)
    redis.call('DEL', inflight)
    redis.pcall('HDEL', known, incarnation)
  end
else
  redis.call('HDEL', workers, incarnation) -- not subject to maxmemory, so what follows is not either
  redis.call('HSET', workers, incarnation, next_entry(current, lease_ms))
  redis.pcall('HSET', known, incarnation, ARGV[4] or '')
end
return {1, tokens, redis.call('HLEN', workers)}
