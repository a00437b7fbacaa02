-- Writes into the record of an item which no worker can read that it was rejected. Not a script of its own: see Uses.
-- KEYS      1 prefix of every key
-- ARGV      as the script that uses it
-- Reply     none; `give_up` returns whether there was such a record
-- Invariant only the record of an operation that waits in that queue changes, and of one with a nonce only for its own item.
local function give_up(value, body, ttl_ms, worker)
  local queue, item = string.match(value, '^([^\n]*)\n(.*)$')
  local id = string.match(item or '', '^{"operation_id":"([^"\\]+)"')
  if not id then return false end
  local key = KEYS[1] .. 'operation:' .. id
  local record = redis.pcall('GET', key)
  local status, nonce, touched_ms, waits_in, dedup_key, rest =
    string.match(type(record) == 'string' and record or '', '^(%a+)\t([^\t]*)\t(%d+)\t([^\t]*)\t([^\t\n]*)([^\n]*)')
  if (status ~= 'queued' and status ~= 'delayed') or waits_in ~= queue then return false end
  if nonce ~= '' and not string.find(item, '"nonce":"' .. nonce .. '"', 1, true) then return false end
  local attempts, queued_ms = string.match(rest, '^\t(%d+)\t(%d+)\t')
  local time = redis.call('TIME')
  local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  local told = {'rejected', nonce, string.format('%d', now_ms), queue, dedup_key, attempts or '0', queued_ms or touched_ms, '0', worker}
  redis.call('SET', key, table.concat(told, '\t') .. '\n' .. body, 'PX', ttl_ms)
  local dedup = KEYS[1] .. 'dedup'
  if dedup_key ~= '' and redis.call('HGET', dedup, dedup_key) == id then redis.call('HDEL', dedup, dedup_key) end
  tell(id)
  redis.pcall('HINCRBY', KEYS[1] .. 'metrics', 'rejected', 1)
  return true
end
