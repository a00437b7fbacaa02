-- Lets the workers know of a list that holds items.
-- Uses      queues ready wake numbers time
-- Invariant nothing here makes a script fail: what is not noted is found by a sweep.

local function announce(queue, priority, name)
  redis.pcall('SADD', registry(), prefix() .. queue)
  redis.pcall('ZADD', ready_index(priority), 'NX', whole(now_us), name)
  wake_workers(name)
end
