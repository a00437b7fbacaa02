-- The verdicts after which an operation goes on: later, elsewhere, or as it is.
-- Owns      ARGV of these verbs, as settle.lua says
-- Uses      settle_request values queues delayed records changes requeue wake verbs numbers time
-- Invariant an item is never outside both places: what leaves the flight is in a list or in the delayed set.

function apply.aside(i, _, wait_ms)
  local value = redis.call('HGET', inflight, ARGV[i])
  if not value then return false end
  redis.call('HDEL', inflight, ARGV[i])
  local _, item = split_value(value)
  note_queued(item or '', ARGV[i])
  put_aside(ARGV[i], value, wait_ms or ARGV[i + 1])
  return DONE
end

function apply.retry(i)
  if redis.call('HDEL', inflight, ARGV[i]) == 0 then return false end
  local member = join_member(ARGV[i], ARGV[i + 3])
  redis.call('ZADD', delayed, whole(now_ms + tonumber(ARGV[i + 4])), member)
  if redis.call('ZRANGE', delayed, 0, 0)[1] == member then -- those who wait must learn the new due time
    local _, name = split_queue(split_value(ARGV[i + 3]) or '')
    wake_workers(name or '')
  end
  redis.call('SET', record_key(ARGV[i + 1]), ARGV[i + 2])
  tell(ARGV[i + 1])
  tally('retried')
  return DONE
end

function apply.release(i)
  local value = redis.call('HGET', inflight, ARGV[i])
  if not value then return false end
  redis.call('HDEL', inflight, ARGV[i])
  requeue('RPUSH', ARGV[i], value)
  return DONE
end

function apply.running(i)
  if redis.call('HEXISTS', inflight, ARGV[i]) == 0 then return false end
  local id = ARGV[i + 1]
  local status = read_record(id)
  if is_final(status) then return false end
  redis.call('SET', record_key(id), ARGV[i + 2])
  tell(id)
  return DONE
end
