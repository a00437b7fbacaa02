-- Serves all queues of a priority but those left out, in turn.
-- Uses      claim_request haul serve sizes numbers
-- Invariant it costs the same however many queues are registered.

-- Whether servable items remain.
local function serve_all(priority)
  local index, passed = ready_index(priority), 0
  local queues, steps = size('ZCARD', index), 300
  local alone = queues == 1
  while queues > 0 and steps > 0 and has_room() do
    local name = redis.call('ZRANGE', index, whole(passed), whole(passed))[1]
    if not name then break end
    if left_out[name] then
      passed, queues = passed + 1, queues - 1
      left_behind = left_behind or size('LLEN', prefix() .. priority .. ':' .. name) > 0
    elseif not serve(priority, name, math.ceil((wanted - #values) / queues), alone) then
      queues = queues - 1
    end
    steps = steps - 1
  end
  return queues > 0
end
