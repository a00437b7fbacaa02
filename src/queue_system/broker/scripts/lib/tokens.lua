-- The numbers of deliveries.
-- Owns      `token`: the last one that was given out
-- Uses      prefix inflight numbers time
-- Invariant no token is given out twice, though the key be lost or broken.

local MOST_TOKEN = 4503599627370496 -- 2^52: numbers stay exact far below it, and tokens, which are of the size of now_us, too

-- The last one as it was noted; 0 if that note is lost or broken.
local function noted_token()
  local last = tonumber(redis.call('GET', prefix() .. 'token') or 0) or 0
  return last >= 0 and last < MOST_TOKEN and last % 1 == 0 and last or 0
end

-- The highest that is in use here, where none is noted.
local function highest_token(inflight)
  local last = 0
  for _, field in ipairs(redis.call('HKEYS', inflight)) do
    local token = tonumber(string.match(field, '^%d+$'))
    if token and token < MOST_TOKEN then last = math.max(last, token) end
  end
  return last
end

local function note_last_token(token) redis.call('SET', prefix() .. 'token', whole(token)) end
