-- The verdicts that end an operation.
-- Owns      ARGV of these verbs, as settle.lua says
-- Uses      prefix settle_request dead_letters give_up settle_back oversized records changes values verbs
-- Invariant the record is written once the token is gone, and a letter before it.

function apply.plain(i, ttl_ms)
  if redis.call('HDEL', inflight, ARGV[i]) == 0 then return false end
  redis.call('SET', records .. ARGV[i + 1], ARGV[i + 2], 'PX', ttl_ms)
  tell(ARGV[i + 1])
  tally('processed')
  return DONE
end

function apply.complete(i, ttl_ms)
  if not take(ARGV[i], ARGV[i + 4]) then return false end
  finish(i, ttl_ms, 'processed')
  return DONE
end

function apply.fail(i, ttl_ms)
  if not take(ARGV[i], ARGV[i + 4]) then return false end
  local went = add_dead_letter('failures', ARGV[i + 5], most_letters)
  finish(i, ttl_ms, 'failed')
  return went and WENT or DONE
end

function apply.reject(i, ttl_ms)
  if not take(ARGV[i], ARGV[i + 4]) then return false end
  local went = add_dead_letter('system_errors', ARGV[i + 5], most_letters)
  finish(i, ttl_ms, 'rejected')
  tally('system_errors')
  return went and WENT or DONE
end

function apply.decline(i, ttl_ms)
  if redis.call('LLEN', prefix() .. 'system_errors') < most_letters then return apply.reject(i, ttl_ms) end
  return apply.aside(i, ttl_ms, ARGV[i + 6]) and KEPT
end

function apply.discard(i, ttl_ms)
  local value = redis.call('HGET', inflight, ARGV[i])
  if not value or not take(ARGV[i], ARGV[i + 4]) then return false end
  local went = add_dead_letter('system_errors', ARGV[i + 5], most_letters)
  give_up(value, ARGV[i + 2], ttl_ms, ARGV[i + 3])
  tally('system_errors')
  return went and WENT or DONE
end

function apply.shelve(i, ttl_ms)
  local value = redis.call('HGET', inflight, ARGV[i])
  if not value then return false end
  local _, item = split_value(value)
  redis.call('SET', oversized_key(ARGV[i]), item or value, 'PX', ARGV[i + 6])
  return apply.reject(i, ttl_ms)
end
