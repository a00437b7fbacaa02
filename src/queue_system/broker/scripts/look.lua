-- Reads the record of an operation; on demand, notes that somebody waits for its next change.
-- KEYS      1 prefix of every key
-- ARGV      1 operation id · 2 for how many ms somebody waits, or "" for nobody
-- Reply     {record or "", server ms, id of the last change that was told, or "0"}
-- Invariant it changes nothing but who waits; a change after the reply has a greater id; full memory does not fail it.
local prefix, id, waits_ms = KEYS[1], ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local record = redis.pcall('GET', prefix .. 'operation:' .. id)
if type(record) ~= 'string' then record = '' end
if not waits_ms then return {record, now_ms, '0'} end

local last = redis.pcall('XREVRANGE', prefix .. 'change:' .. id, '+', '-', 'COUNT', 1)
redis.pcall('ZADD', prefix .. 'waiters', 'GT', now_ms + waits_ms, id)
redis.pcall('ZREMRANGEBYSCORE', prefix .. 'waiters', '-inf', now_ms - 1)
return {record, now_ms, not last.err and last[1] and last[1][1] or '0'}
