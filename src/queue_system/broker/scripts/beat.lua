-- Registers an incarnation, shows that it lives, or signs it off.
-- KEYS      1 prefix of every key
-- ARGV      1 "register", "beat" or "leave" · 2 incarnation · 3 lease in ms · 4 what the worker tells of itself
-- Reply     {1 alive or 0 unregistered, tokens in flight, registered incarnations}
-- Invariant a beat never brings back an incarnation that was reclaimed; one that holds tokens does not leave.
local workers, inflight = KEYS[1] .. 'workers', KEYS[1] .. 'inflight:' .. ARGV[2]
local mode, incarnation, lease_ms = ARGV[1], ARGV[2], ARGV[3]
local current = redis.call('HGET', workers, incarnation)
local tokens = redis.call('HLEN', inflight)
  - redis.call('HEXISTS', inflight, '#claim') - redis.call('HEXISTS', inflight, '#settle')
local reclaimed = redis.call('HEXISTS', workers, 'dead:' .. incarnation) == 1
if reclaimed or (not current and mode ~= 'register') then return {0, tokens, redis.call('HLEN', workers)} end
if mode == 'leave' then
  for _, field in ipairs(redis.call('HKEYS', inflight)) do -- fields of other kinds hold nothing
    if string.sub(field, 1, 1) == '#' and field ~= '#claim' and field ~= '#settle' then tokens = tokens - 1 end
  end
  if tokens == 0 then
    redis.call('HDEL', workers, incarnation)
    redis.call('DEL', inflight)
    redis.pcall('HDEL', KEYS[1] .. 'incarnations', incarnation)
  end
else
  local counter = tonumber(string.match(current or '', '^(%d+):') or 0)
  redis.call('HDEL', workers, incarnation) -- not subject to maxmemory, so what follows is not either
  redis.call('HSET', workers, incarnation, string.format('%.0f:%s', counter + 1, lease_ms))
  redis.pcall('HSET', KEYS[1] .. 'incarnations', incarnation, ARGV[4] or '')
end
return {1, tokens, redis.call('HLEN', workers)}
