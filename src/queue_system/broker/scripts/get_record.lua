-- Reads the record of an operation; on demand, notes that somebody waits for its next change.
-- KEYS      1 prefix of every key
-- ARGV      1 operation id · 2 for how many ms somebody waits, or "" for nobody
-- Reply     {record or "", server ms, id of the last change that was told, or "0"}
-- Uses      records changes time
-- Invariant it changes nothing but the notes of who waits; a change after the reply has a greater id; full memory does not fail it.
local id, waits_ms = ARGV[1], tonumber(ARGV[2])
local record = redis.pcall('GET', record_key(id))
if type(record) ~= 'string' then record = '' end
if not waits_ms then return {record, now_ms, '0'} end

local last = redis.pcall('XREVRANGE', change_of(id), '+', '-', 'COUNT', 1)
redis.pcall('ZADD', waiters, 'GT', now_ms + waits_ms, id)
redis.pcall('ZREMRANGEBYSCORE', waiters, '-inf', now_ms - 1)
return {record, now_ms, not last.err and last[1] and last[1][1] or '0'}
