-- What an incarnation holds.
-- Owns      `inflight:INCARNATION`: token → value · "#claim" and "#settle": notes of its last claim and settlement
-- Uses      prefix
-- Invariant a field that begins with "#" holds no item, whatever a later version calls so.

local function inflight_of(incarnation) return prefix() .. 'inflight:' .. incarnation end

local function is_token(field) return string.byte(field) ~= 35 end -- "#"

-- How many of a number of fields are tokens, as far as this version knows.
local function count_tokens(inflight, fields) return fields - redis.call('HEXISTS', inflight, '#claim') - redis.call('HEXISTS', inflight, '#settle') end

-- How many are, whatever else lies there; it reads the name of each field.
local function count_tokens_exactly(inflight)
  local tokens = 0
  for _, field in ipairs(redis.call('HKEYS', inflight)) do
    if is_token(field) then tokens = tokens + 1 end
  end
  return tokens
end
