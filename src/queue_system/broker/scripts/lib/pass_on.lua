-- Passes on the wake-up that a claim which takes nothing may have used.
-- Uses      claim_request queues ready wake
-- Invariant nothing here makes a script fail; a worker is woken only for queues that hold something.

local function pass_on_wake_up()
  redis.pcall('ZREM', wake(), '') -- a write that maxmemory allows allows the next
  for _, priority in ipairs(adopted == '' and PRIORITIES or {}) do
    local index = ready_index(priority)
    local ready = redis.pcall('ZCARD', index)
    if not serves_named and type(ready) == 'number' and ready > 0 then wake_up(wake()) end
    for i = serves_named and FIRST_NAME or #ARGV + 1, #ARGV do
      if type(redis.pcall('ZSCORE', index, ARGV[i])) == 'string' then wake_up(wake_key(ARGV[i])) end
    end
  end
end
