-- Moves items that a dead incarnation held to where they run again, or to the dead letters. The second half of a reclaim.
-- KEYS      1 prefix of every key
-- ARGV      1 incarnation · 2 most dead letters of a list
--           then for each item: token · value as read · "next", "later" or "reject" · new value or dead letter
--           (of one that was not read, "back": it goes as it is)
--           · id · record · record lifetime in ms · deduplication key · value of the callback item ("" for none)
--           The record of what is not rejected replaces a live one only. Rejected without an id, the item could not be read:
--           with a lifetime above 1, `record` is the body of its record, which is found by the id that it begins with.
-- Reply     {items moved, tokens left}
-- Uses      workers inflight delayed records release_key changes requeue dead_letters give_up counters
-- Invariant an item moves once, and only as it was read; the incarnation's entry goes when nothing is left.
local incarnation, most_letters = ARGV[1], tonumber(ARGV[2])
local inflight = inflight_of(incarnation)

if not is_registered(dead(incarnation)) then return {0, 0} end
redis.call('HLEN', inflight)
redis.call('LLEN', prefix() .. 'system_errors')
redis.call('ZCARD', delayed)
redis.call('HLEN', dedup())

local function note_queued_again(id, record)
  local status = read_record(id)
  if not is_live(status) then return end
  redis.pcall('SET', record_key(id), record)
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
      add_dead_letter('system_errors', new, most_letters)
      if id ~= '' then
        redis.call('SET', record_key(id), record, 'PX', ttl_ms)
        release_key(dedup_key, id)
        count('rejected', 1)
        tell(id)
      elseif tonumber(ttl_ms) > 1 then
        give_up(old, record, ttl_ms, '')
      end
      if follow_up ~= '' then requeue('RPUSH', token, follow_up) end
    else
      if record ~= '' then note_queued_again(id, record) end
      requeue(how == 'next' and 'RPUSH' or 'LPUSH', token, new)
    end
  end
end
finish_requeue()
if rejected > 0 then count('system_errors', rejected) end
if moved > 0 then count('reclaimed', moved) end

local left = count_tokens(inflight, redis.call('HLEN', inflight))
if left > 0 and #ARGV == 2 then left = count_tokens_exactly(inflight) end
if left == 0 then
  redis.call('HDEL', workers, dead(incarnation))
  redis.call('DEL', inflight)
  redis.pcall('HDEL', known, incarnation)
end
return {moved, left}
