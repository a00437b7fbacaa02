-- Settles many deliveries of one incarnation, each with its verdict.
-- KEYS      1 prefix of every key
-- ARGV      1 incarnation · 2 settlement id, ending in a growing number · 3 most dead letters of a list
--           then groups: verb · record lifetime in ms · count · and for each delivery
--             complete  token · id · record · deduplication key · value of the callback item ("" for none)
--             fail      the same · dead letter for `failures`
--             reject    the same · dead letter for `system_errors`
--             discard   token · "" · body of the record · worker · value of the callback item · dead letter, as in reject:
--                       for what cannot be read, whose record is found by the id that it begins with
--             shelve    as reject, then for how many ms the item stays under the key to which it is moved as it is:
--                       for a verdict that the server refuses
--             retry     token · id · record · value of the changed item · delay in ms
--             decline   as reject, then for how many ms the item waits instead while that list is full
--             release   token
--             aside     token · for how many ms the item waits
--             running   token · id · record
--           An id of "" writes no record: the delivery was a callback, its verdict stands already.
-- Reply     a string with one letter for each delivery: "d" done · "o" done, and the oldest letter went · "l" lost
--           · "k" kept, the letters being full; "lost" when the incarnation is unregistered
-- Uses      tell.lua put_back.lua bury.lua give_up.lua
-- Invariant sent again with the same settlement id it changes nothing and gives the same answer.
local prefix, incarnation, settlement_id, most_letters = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local inflight, delayed, dedup = prefix .. 'inflight:' .. incarnation, prefix .. 'delayed', prefix .. 'dedup'
local ARITY = {complete = 5, fail = 6, reject = 6, decline = 7, discard = 6, shelve = 7, retry = 5, release = 1, aside = 2, running = 3}

if redis.call('HEXISTS', prefix .. 'workers', incarnation) == 0 then return 'lost' end
local previous = redis.call('HGET', inflight, '#settle')
local previous_id, answer = string.match(previous or '', '^(%S+) (%a*)$')
if previous_id == settlement_id then return answer end
local series, number_of = string.match(settlement_id, '^(.-)(%d+)$')
local last_series, last_number = string.match(previous_id or '', '^(.-)(%d+)$')
local late = series and series == last_series and tonumber(number_of) < tonumber(last_number)
-- late: held up on a lost connection, it was sent again long ago; only ids of one series have an order
redis.call('LLEN', prefix .. 'failures')
redis.call('LLEN', prefix .. 'system_errors')
redis.call('ZCARD', delayed)
redis.call('HLEN', dedup)

local codes, counts = {}, {}
local function count(name) counts[name] = (counts[name] or 0) + 1 end

local operation_prefix = prefix .. 'operation:'

local function take(token, follow_up)
  if follow_up == '' then return redis.call('HDEL', inflight, token) == 1 end
  if redis.call('HEXISTS', inflight, token) == 0 then return false end
  redis.call('HSET', inflight, token, follow_up)
  return true
end

local function finish(i, ttl_ms, outcome)
  local id, dedup_key = ARGV[i + 1], ARGV[i + 3]
  if id == '' then return end
  redis.call('SET', operation_prefix .. id, ARGV[i + 2], 'PX', ttl_ms)
  if dedup_key ~= '' and redis.call('HGET', dedup, dedup_key) == id then redis.call('HDEL', dedup, dedup_key) end
  tell(id)
  count(outcome)
end

local verbs = {} -- each returns the letter of its reply, or nothing for a lost one
function verbs.complete(i, ttl_ms)
  if not take(ARGV[i], ARGV[i + 4]) then return false end
  finish(i, ttl_ms, 'processed')
  return 'd'
end
function verbs.fail(i, ttl_ms)
  if not take(ARGV[i], ARGV[i + 4]) then return false end
  local went = bury('failures', ARGV[i + 5], most_letters)
  finish(i, ttl_ms, 'failed')
  return went and 'o' or 'd'
end
function verbs.reject(i, ttl_ms)
  if not take(ARGV[i], ARGV[i + 4]) then return false end
  local went = bury('system_errors', ARGV[i + 5], most_letters)
  finish(i, ttl_ms, 'rejected')
  count('system_errors')
  return went and 'o' or 'd'
end
function verbs.decline(i, ttl_ms)
  if redis.call('LLEN', prefix .. 'system_errors') < most_letters then return verbs.reject(i, ttl_ms) end
  return verbs.aside(i, ttl_ms, ARGV[i + 6]) and 'k'
end
function verbs.discard(i, ttl_ms)
  local value = redis.call('HGET', inflight, ARGV[i])
  if not value or not take(ARGV[i], ARGV[i + 4]) then return false end
  local went = bury('system_errors', ARGV[i + 5], most_letters)
  give_up(value, ARGV[i + 2], ttl_ms, ARGV[i + 3])
  count('system_errors')
  return went and 'o' or 'd'
end
function verbs.shelve(i, ttl_ms)
  local value = redis.call('HGET', inflight, ARGV[i])
  if not value then return false end
  local item = string.match(value, '^[^\n]*\n(.*)$') or value
  redis.call('SET', prefix .. 'oversized:' .. ARGV[i], item, 'PX', ARGV[i + 6])
  return verbs.reject(i, ttl_ms)
end
function verbs.aside(i, _, wait_ms)
  local value = redis.call('HGET', inflight, ARGV[i])
  if not value then return false end
  redis.call('HDEL', inflight, ARGV[i])
  note_queued(string.match(value, '\n(.*)$') or '', ARGV[i])
  put_aside(ARGV[i], value, wait_ms or ARGV[i + 1])
  return 'd'
end
function verbs.retry(i)
  if redis.call('HDEL', inflight, ARGV[i]) == 0 then return false end
  local member = ARGV[i] .. '\n' .. ARGV[i + 3]
  redis.call('ZADD', delayed, now_ms + tonumber(ARGV[i + 4]), member)
  if redis.call('ZRANGE', delayed, 0, 0)[1] == member then -- whoever waits must learn the new due time
    redis.pcall('ZADD', prefix .. 'wake', 0, 'r')
    redis.pcall('ZADD', prefix .. 'wake:' .. (string.match(ARGV[i + 3], '^%a+:([^\n]+)\n') or ''), 0, 'r')
  end
  redis.call('SET', operation_prefix .. ARGV[i + 1], ARGV[i + 2])
  tell(ARGV[i + 1])
  count('retried')
  return 'd'
end
function verbs.release(i)
  local value = redis.call('HGET', inflight, ARGV[i])
  if not value then return false end
  redis.call('HDEL', inflight, ARGV[i])
  put_back('RPUSH', ARGV[i], value)
  return 'd'
end
function verbs.running(i)
  if redis.call('HEXISTS', inflight, ARGV[i]) == 0 then return false end
  local key = operation_prefix .. ARGV[i + 1]
  local record = redis.pcall('GET', key)
  local status = type(record) == 'string' and string.match(record, '^%a+')
  if status == 'succeeded' or status == 'failed' or status == 'rejected' then return false end
  redis.call('SET', key, ARGV[i + 2])
  tell(ARGV[i + 1])
  return 'd'
end

if not late then redis.call('HDEL', inflight, '#settle') end -- not subject to maxmemory, so what follows is not either
local position, settled = 4, 0
while position <= #ARGV do
  local verb, ttl_ms, group = ARGV[position], ARGV[position + 1], tonumber(ARGV[position + 2])
  local apply, arity = verbs[verb], ARITY[verb]
  position = position + 3
  for _ = 1, group do
    settled = settled + 1
    codes[settled] = not late and apply(position, ttl_ms) or 'l'
    position = position + arity
  end
end
finish_put_back()
for name, n in pairs(counts) do redis.pcall('HINCRBY', prefix .. 'metrics', name, n) end
answer = table.concat(codes)
if late then return answer end
redis.call('HSET', inflight, '#settle', settlement_id .. ' ' .. answer)
return answer
