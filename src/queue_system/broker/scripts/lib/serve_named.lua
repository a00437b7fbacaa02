-- Serves the queues of a priority that a claim names, in turn.
-- Uses      claim_request haul serve sizes wake
-- Invariant a marker lies for each that has more; it costs the same however many others are registered.

local served -- the names as a set, made when it is needed

-- The queues served that are ready, by turn.
local function turns_of(index)
  local ready, turns = size('ZCARD', index), {}
  if ready == 0 then return turns end
  if ready <= 10 * #ARGV then -- one command for all is cheaper than one for each name
    if not served then
      served = {}
      for i = FIRST_NAME, #ARGV do served[ARGV[i]] = true end
    end
    for start = 0, ready - 1, 1000 do
      for _, name in ipairs(redis.call('ZRANGE', index, start, start + 999)) do
        if served[name] then turns[#turns + 1] = name end
        if #turns == wanted + 256 then return turns end -- those behind are served, and their markers seen to, in their turn
      end
    end
    return turns
  end
  local scores = {}
  for i = FIRST_NAME, #ARGV do
    local score = redis.call('ZSCORE', index, ARGV[i])
    if score and not scores[ARGV[i]] then
      scores[ARGV[i]] = tonumber(score)
      turns[#turns + 1] = ARGV[i]
    end
  end
  table.sort(turns, function(a, b) return scores[a] < scores[b] end)
  return turns
end

local function arm(markers, first, last) -- most of many lie there already
  local there = redis.pcall('EXISTS', unpack(markers, first, last))
  if there == last - first + 1 then return end
  for i = first, last do wake_up(markers[i]) end
end

-- Whether servable items remain.
local function serve_named(priority)
  local turns, waiting = turns_of(ready_index(priority)), {}
  for i, name in ipairs(turns) do
    local missing = wanted - #values
    if not has_room() or serve(priority, name, math.ceil(missing / (#turns - i + 1))) then
      waiting[#waiting + 1] = wake_key(name)
    end
  end
  for first = 1, #waiting, 128 do arm(waiting, first, math.min(first + 127, #waiting)) end
  return #waiting > 0
end
