-- The names of queues and of their lists.
-- Owns      queue "high:NAME" · list: prefix, queue · `registry`: the lists that exist
-- Uses      prefix
-- Invariant a name that users cannot choose is none.

local function registry() return prefix() .. 'registry' end

local PRIORITIES = {'high', 'normal', 'low'}

-- The priority and the name of a queue; nothing if it is no queue of this system.
local function split_queue(queue)
  local priority, name = string.match(queue, '^(%a+):([%w_.-]+)$')
  if priority == 'high' or priority == 'normal' or priority == 'low' then return priority, name end
end

-- The queue of a list; nothing if it lies elsewhere.
local function queue_of(list) return string.sub(list, 1, #prefix()) == prefix() and string.sub(list, #prefix() + 1) or nil end

-- The three lists of a name.
local function lists_of(name)
  local lists = {}
  for i, priority in ipairs(PRIORITIES) do lists[i] = prefix() .. priority .. ':' .. name end
  return lists
end
