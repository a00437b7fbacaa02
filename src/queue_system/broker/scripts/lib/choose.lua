-- Finds which of some new operations may be added, where an id or a deduplication key may be taken.
-- Owns      ARGV 4 and from 5 on of enqueue.lua
-- Uses      records deduplication
-- Invariant nothing is written; an operation of the same call, sent again, counts as queued.

-- Items, writes of their records, an answer for each operation, and the holder of each key.
local function choose(nonce, now_ms, header, rest)
  local lifetime_ms, added, items, writes, answers, held = tonumber(ARGV[4]), {}, {}, {}, {}, {}
  if lifetime_ms then redis.call('HLEN', dedup()) end -- before the first write, to see its type
  local function resent(id)
    local _, its_nonce = read_record(id)
    return its_nonce == nonce and not added[id]
  end
  local function holder_of(key, id)
    if held[key] then return held[key] ~= id and held[key] or nil end
    return live_holder(key, id, lifetime_ms, now_ms)
  end
  for i = 6, #ARGV, lifetime_ms and 3 or 2 do
    local id, key = ARGV[i], lifetime_ms and ARGV[i + 2] or ''
    local answer = key ~= '' and (resent(id) and 1 or holder_of(key, id))
    if not answer and not added[id] and redis.call('EXISTS', record_key(id)) == 0 then
      answer = 1
      added[id] = true
      items[#items + 1] = ARGV[i + 1]
      writes[#writes + 1] = record_key(id)
      writes[#writes + 1] = header .. key .. rest
      if key ~= '' then held[key] = id end
    elseif not answer then
      answer = resent(id) and 1 or 0
    end
    answers[#answers + 1] = answer
  end
  return items, writes, answers, held
end
