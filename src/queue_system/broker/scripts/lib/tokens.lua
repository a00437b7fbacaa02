-- The numbers of deliveries.
-- Owns      `token`: the last one that was given out
-- Uses      prefix inflight time
-- Invariant no token is given out twice, though the key be lost or broken.

local MOST_TOKEN = 4503599627370496 -- 2^52: numbers stay exact far below it, and tokens, which are of the size of now_us, too

local function whole(value) return string.format('%d', value) end -- exact below 2^53

local function last_token(inflight)
  local last = tonumber(redis.call('GET', prefix() .. 'token') or 0) or 0
  if not (last >= 0 and last < MOST_TOKEN and last % 1 == 0) then last = 0 end
  if last > 0 then return last end
  for _, field in ipairs(redis.call('HKEYS', inflight)) do -- lost or broken
    local token = tonumber(string.match(field, '^%d+$'))
    if token and token < MOST_TOKEN then last = math.max(last, token) end
  end
  return last
end

local function note_last_token(token) redis.call('SET', prefix() .. 'token', whole(token)) end
