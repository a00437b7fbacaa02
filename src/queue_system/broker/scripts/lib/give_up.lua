-- Writes into the record of an item which no worker can read that it was rejected.
-- Uses      values items records release_key changes counters time
-- Invariant only the record of an operation that waits in that queue changes, and of one with a nonce only for its own item.

-- Whether there was such a record.
local function give_up(value, body, ttl_ms, worker)
  local queue, item = split_value(value)
  local id = id_of(item or '')
  if not id then return false end
  local status, nonce, touched_ms, waits_in, key, rest = read_record(id)
  if not is_waiting(status) or waits_in ~= queue then return false end
  if nonce ~= '' and not string.find(item, '"nonce":"' .. nonce .. '"', 1, true) then return false end
  local attempts, queued_ms = record_counts(rest)
  local line = record_head(REJECTED, nonce, now_ms, queue, key) .. record_rest(attempts or '0', queued_ms or touched_ms, worker)
  redis.call('SET', record_key(id), line .. '\n' .. body, 'PX', ttl_ms)
  release_key(key, id)
  tell(id)
  count('rejected', 1)
  return true
end
