-- What was answered to the last request of a call that comes in several.
-- Owns      `answer:CALL`: number of the request, a space, the answer
-- Uses      prefix
-- Invariant it stays for five minutes, so a request that is sent again is answered as before.

local function answer_key(call) return prefix() .. 'answer:' .. call end

-- The answer to a request if it was run before, nil if not; "" for one that others followed: nobody waits for that.
local function earlier_answer(kept, request)
  local last, answer = string.match(type(kept) == 'string' and kept or '', '^(%d+) (%w*)$')
  if not last or tonumber(last) < request then return nil end
  return tonumber(last) == request and answer or ''
end

local function remember(run, key, request, answer) run('SET', key, string.format('%d %s', request, answer), 'PX', 300000) end
