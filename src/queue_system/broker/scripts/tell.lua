-- Tells those who wait for an operation that its record has changed. Not a script of its own: it precedes those under Uses.
-- KEYS      1 prefix of every key
-- ARGV      as the script that uses it
-- Reply     none
-- Invariant where nobody waits nothing is written; nothing here makes the script fail.
local someone_waits
local function tell(id)
  if someone_waits == nil then
    local latest, time = redis.pcall('ZREVRANGE', KEYS[1] .. 'waiters', 0, 0, 'WITHSCORES'), redis.call('TIME')
    someone_waits = not latest.err and latest[2] ~= nil and tonumber(latest[2]) >= time[1] * 1000
    if latest[2] and not someone_waits then redis.call('DEL', KEYS[1] .. 'waiters') end
  end
  if not someone_waits or type(redis.pcall('ZSCORE', KEYS[1] .. 'waiters', id)) ~= 'string' then return end
  redis.pcall('XADD', KEYS[1] .. 'change:' .. id, 'MAXLEN', 1, '*', 'c', '')
  redis.pcall('PEXPIRE', KEYS[1] .. 'change:' .. id, 60000)
end
