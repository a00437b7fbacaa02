-- What a settlement is about, and what all its verdicts need.
-- Owns      ARGV 1 to 3 of settle.lua · the field "#settle" in flight: settlement id, a space, the answer
-- Uses      inflight records release_key changes series verbs
-- Invariant a delivery whose token is gone is lost, and nothing else of it changes.

local incarnation, settlement_id = ARGV[1], ARGV[2]

local inflight = inflight_of(incarnation)

local most_letters, counts = tonumber(ARGV[3]), {}

local function tally(event) counts[event] = (counts[event] or 0) + 1 end

-- Whether the delivery was in flight; its callback item goes there in its place.
local function take(token, follow_up)
  if follow_up == '' then return redis.call('HDEL', inflight, token) == 1 end
  if redis.call('HEXISTS', inflight, token) == 0 then return false end
  redis.call('HSET', inflight, token, follow_up)
  return true
end

local function finish(i, ttl_ms, outcome)
  local id, key = ARGV[i + 1], ARGV[i + 3]
  if id == '' then return end
  redis.call('SET', records .. id, ARGV[i + 2], 'PX', ttl_ms)
  if key ~= '' then release_key(key, id) end
  tell(id)
  tally(outcome)
end

-- The id of the last settlement and its answer.
local function read_settle_note() return string.match(redis.call('HGET', inflight, '#settle') or '', '^(%S+) (%a*)$') end

local function write_settle_note(answer) redis.call('HSET', inflight, '#settle', settlement_id .. ' ' .. answer) end

local apply = {} -- each returns the code of its reply, or nothing for a lost one
