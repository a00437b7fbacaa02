-- Reads a page of what an incarnation holds, the oldest first.
-- KEYS      1 prefix of every key
-- ARGV      1 incarnation · 2 the token behind which the page begins ("0" to begin) · 3 size of the largest value that is sent
-- Reply     {the last token of the page, or "0" at the end, {token, value or nil if it is larger...}}
-- Uses      inflight limits
-- Invariant it writes nothing, and reads up to 100 values, or about 8 MiB; what begins with "#" is no token.
local inflight, behind, most_sent = inflight_of(ARGV[1]), ARGV[2], tonumber(ARGV[3])

local function is_before(token, other) -- as numbers, whatever a foreign client calls its own
  if #token ~= #other then return #token < #other end
  return token < other
end

local tokens, page, bytes = {}, {}, 0
for _, field in ipairs(redis.call('HKEYS', inflight)) do
  if is_token(field) and (behind == '0' or is_before(behind, field)) then tokens[#tokens + 1] = field end
end
table.sort(tokens, is_before)
for i, token in ipairs(tokens) do
  if i > 100 or bytes >= MOST_BYTES then return {tokens[i - 1], page} end
  local value = redis.call('HGET', inflight, token)
  bytes = bytes + #value
  page[2 * i - 1] = token
  page[2 * i] = #value <= most_sent and value or false
end
return {'0', page}
