-- Puts items back into their lists and wakes a worker.
-- Uses      values queues delayed items records changes announce numbers time
-- Invariant an item whose list cannot take it waits a second in the delayed set, so it is never lost.

local returning, lists_in_order = {}, {}

local function put_aside(token, value, wait_ms)
  redis.call('ZADD', delayed, whole(now_ms + (tonumber(wait_ms) or 1000)), join_member(token, value))
end

-- Lets the record of an operation that was noted as running say so no longer. That of one without an id goes: it is named
-- after its token, and will have another.
local function note_queued(item, token)
  local id = id_of(item)
  if not id then redis.pcall('DEL', record_key('token-' .. token)) elseif requeue_record(id) then tell(id) end
end

-- Notes an item for `finish_requeue`; items of one list keep their order.
local function requeue(push, token, value)
  local queue, item = split_value(value)
  local priority, name = split_queue(queue or '')
  if not priority then return put_aside(token, value) end
  local list = push .. queue
  if not returning[list] then
    returning[list] = {push = push, queue = queue, priority = priority, name = name, items = {}, tokens = {}}
    lists_in_order[#lists_in_order + 1] = returning[list]
  end
  note_queued(item, token)
  table.insert(returning[list].items, item)
  table.insert(returning[list].tokens, token)
end

local function finish_requeue()
  for _, list in ipairs(lists_in_order) do
    if type(redis.pcall(list.push, prefix() .. list.queue, unpack(list.items))) == 'number' then
      announce(list.queue, list.priority, list.name)
    else
      for i, item in ipairs(list.items) do put_aside(list.tokens[i], join_value(list.queue, item)) end
    end
  end
end
