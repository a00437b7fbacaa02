-- Tells those who wait for an operation that its record has changed.
-- Owns      `waiters`: id → until when somebody waits, in ms of the server's time · `change:ID`: a stream of one entry
-- Uses      prefix time
-- Invariant where nobody waits nothing is written; nothing here makes the script fail.

local waiters = prefix() .. 'waiters'

local someone_waits

local function nobody_waits() return redis.pcall('EXISTS', waiters) == 0 end

local function change_of(id) return prefix() .. 'change:' .. id end

local function tell(id)
  if someone_waits == nil then
    local latest = redis.pcall('ZREVRANGE', waiters, 0, 0, 'WITHSCORES')
    someone_waits = not latest.err and latest[2] ~= nil and tonumber(latest[2]) + 1000 > now_ms
    if latest[2] and not someone_waits then redis.call('DEL', waiters) end
  end
  if not someone_waits or type(redis.pcall('ZSCORE', waiters, id)) ~= 'string' then return end
  redis.pcall('XADD', change_of(id), 'MAXLEN', 1, '*', 'c', '')
  redis.pcall('PEXPIRE', change_of(id), 60000)
end
