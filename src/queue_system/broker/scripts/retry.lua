-- Moves dead letters back into the queues they came from: list, ready index, wake-up markers, record, deduplication.
-- KEYS      1 prefix of every key
-- ARGV      1 to 5 as lib/dead_letter_places.lua has them · 6 lifetime of a deduplication key in ms · 7 nonce of the call
--           then for each letter: letter · queue · item · id ("" writes no record) · deduplication key
--           · "n" and the item's own nonce if its record does not say that it became a dead letter, else ""
-- Reply     a string with one code for each: "d" done · "g" gone, or not near its place · "l" its operation lives, has
--           succeeded, or lacks its deduplication key, which a live one holds
-- Uses      dead_letter_places records delayed deduplication changes values requeue counters time
-- Invariant sent again it moves nothing more and gives the same answer; a live operation gets no second item.
local lifetime_ms, nonce = tonumber(ARGV[6]), ARGV[7]
if answered then return answered end
redis.call('ZCARD', delayed)
redis.call('HLEN', dedup())

local ids, keys = {}, {} -- what this request brings back to life
local function lives(id, key, untold)
  if id == '' then return false end
  if ids[id] or keys[key] then return true end
  local status, its_nonce = read_record(id)
  if status == SUCCEEDED then return true end
  if is_live(status) and untold ~= 'n' .. its_nonce then return true end
  if key ~= '' and live_holder(key, id, lifetime_ms, now_ms) then return true end
  ids[id] = true
  if key ~= '' then keys[key] = true end
  return false
end

local find, places, codes, chosen = finder(), {}, {}, {}
for i = 8, #ARGV, 6 do
  local place, code = find(ARGV[i]), 'd'
  if not place then
    code = 'g'
  elseif lives(ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]) then
    code = 'l'
  else
    places[#places + 1] = place
    chosen[#chosen + 1] = i
  end
  codes[#codes + 1] = code
end

remove(places)
for _, i in ipairs(chosen) do
  local queue, id, key = ARGV[i + 1], ARGV[i + 3], ARGV[i + 4]
  if id ~= '' then
    redis.call('SET', record_key(id), record_head(QUEUED, nonce, now_ms, queue, key))
    if key ~= '' then redis.call('HSET', dedup(), key, id) end
    tell(id)
  end
  requeue('LPUSH', ARGV[2] .. '-' .. ARGV[3] .. '-' .. i, join_value(queue, ARGV[i + 2]))
end
finish_requeue()
if #places > 0 then count('dead_letters_retried', #places) end
return answer_with(table.concat(codes))
