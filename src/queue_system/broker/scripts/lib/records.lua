-- What is known of an operation.
-- Owns      `operation:ID`: status, nonce, ms of the last change, queue, deduplication key
--           and, if it says more, attempts, ms when it was enqueued, ms when it was started, worker; between them tabs;
--           then a line feed and JSON
-- Uses      prefix numbers states
-- Invariant what is no record of this system reads as none.

local records = prefix() .. 'operation:' -- for loops; else a name less is carried into a function

local function record_key(id) return prefix() .. 'operation:' .. id end

local RECORD = '^(%a+)\t([^\t]*)\t(%d+)\t([^\t]*)\t([^\t\n]*)([^\n]*)'

-- The first five fields, and the rest of the line; nothing if there is no record.
local function read_record(id) return string.match(tostring(redis.pcall('GET', record_key(id))), RECORD) end

local function record_head(status, nonce, ms, queue, key) return string.format('%s\t%s\t%d\t%s\t%s', status, nonce, ms, queue, key) end

local function record_rest(attempts, queued_ms, worker) return string.format('\t%s\t%s\t0\t%s', attempts, queued_ms, worker) end

-- From the rest of the line: how many attempts, and when it was enqueued; nothing if it says neither.
local function record_counts(rest) return string.match(rest, '^\t(%d+)\t(%d+)\t') end

-- Lets the record of a running operation say that it is queued; whether it was one.
local function requeue_record(id)
  local record = redis.pcall('GET', record_key(id))
  if type(record) ~= 'string' or string.sub(record, 1, 8) ~= 'running\t' then return false end
  redis.pcall('SET', record_key(id), 'queued' .. string.sub(record, 8))
  return true
end

-- Writes so many records, keys and records in turn, by one command; one by one if the server does not take it.
local function write_records(command, writes, count, ttl_ms)
  writes[2 * count + 1], writes[2 * count + 2] = 'PX', ttl_ms
  if count < 2000 and type(redis.pcall(command, whole(count), unpack(writes))) == 'number' then return end
  for i = 1, 2 * count, 2 do redis.call('SET', writes[i], writes[i + 1], 'PX', ttl_ms) end
end
