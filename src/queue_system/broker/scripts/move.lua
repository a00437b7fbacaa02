-- Moves items that a dead incarnation held to where they run again, or to the dead letters. The second half of a reclaim.
-- KEYS      1 prefix of every key
-- ARGV      1 incarnation · 2 most dead letters of a list
--           then for each item: token · value as read · "next", "later" or "reject" · new value or dead letter
--           (of one that was not read, "back": it goes as it is)
--           · id · record · record lifetime in ms · deduplication key · value of the callback item ("" for none)
--           The record of what is not rejected replaces a live one only. Rejected without an id, the item could not be read:
--           with a lifetime above 1, `record` is the body of its record, which is found by the id that it begins with.
-- Reply     {items moved, tokens left}
-- Uses      tell.lua put_back.lua bury.lua give_up.lua
-- Invariant an item moves once, and only as it was read; the incarnation's entry goes when nothing is left.
local prefix, incarnation = KEYS[1], ARGV[1]
local workers, inflight, dedup = prefix .. 'workers', prefix .. 'inflight:' .. incarnation, prefix .. 'dedup'
local delayed, most_letters = prefix .. 'delayed', tonumber(ARGV[2])

if redis.call('HEXISTS', workers, 'dead:' .. incarnation) == 0 then return {0, 0} end
redis.call('HLEN', inflight)
redis.call('LLEN', prefix .. 'system_errors')
redis.call('ZCARD', delayed)
redis.call('HLEN', dedup)

local function note_queued_again(id, record)
  local key = prefix .. 'operation:' .. id
  local known = redis.pcall('GET', key)
  local status = type(known) == 'string' and string.match(known, '^%a+')
  if status ~= 'queued' and status ~= 'running' and status ~= 'delayed' then return end
  redis.pcall('SET', key, record)
  tell(id)
end

local moved, rejected = 0, 0
for i = 3, #ARGV, 9 do
  local token, old, how, new = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local id, record, ttl_ms, dedup_key, follow_up = ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7], ARGV[i + 8]
  local held = redis.call('HGET', inflight, token)
  if how == 'back' then old, how, new = held, 'next', held end
  if held and held == old then
    redis.call('HDEL', inflight, token)
    moved = moved + 1
    if how == 'reject' then
      rejected = rejected + 1
      bury('system_errors', new, most_letters)
      if id ~= '' then
        redis.call('SET', prefix .. 'operation:' .. id, record, 'PX', ttl_ms)
        if dedup_key ~= '' and redis.call('HGET', dedup, dedup_key) == id then redis.call('HDEL', dedup, dedup_key) end
        redis.pcall('HINCRBY', prefix .. 'metrics', 'rejected', 1)
        tell(id)
      elseif tonumber(ttl_ms) > 1 then
        give_up(old, record, ttl_ms, '')
      end
      if follow_up ~= '' then put_back('RPUSH', token, follow_up) end
    else
      if record ~= '' then note_queued_again(id, record) end
      put_back(how == 'next' and 'RPUSH' or 'LPUSH', token, new)
    end
  end
end
finish_put_back()
if rejected > 0 then redis.pcall('HINCRBY', prefix .. 'metrics', 'system_errors', rejected) end
if moved > 0 then redis.pcall('HINCRBY', prefix .. 'metrics', 'reclaimed', moved) end

local left = redis.call('HLEN', inflight)
  - redis.call('HEXISTS', inflight, '#claim') - redis.call('HEXISTS', inflight, '#settle')
if left > 0 and #ARGV == 2 then -- fields of other kinds hold nothing
  for _, field in ipairs(redis.call('HKEYS', inflight)) do
    if string.sub(field, 1, 1) == '#' and field ~= '#claim' and field ~= '#settle' then left = left - 1 end
  end
end
if left == 0 then
  redis.call('HDEL', workers, 'dead:' .. incarnation)
  redis.call('DEL', inflight)
  redis.pcall('HDEL', prefix .. 'incarnations', incarnation)
end
return {moved, left}
