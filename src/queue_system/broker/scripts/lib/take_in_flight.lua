-- Puts what a claim has taken in flight.
-- Uses      claim_request haul claim_note numbers tokens
-- Invariant tokens are consecutive, in the order of the values, and noted before they are used.

local function take_in_flight(inflight)
  if #values == 0 then return end
  first_token = fresh_token
  note_last_token(first_token + #values - 1)
  local fields, filled = {'#claim', claim_note(claim_id, first_token, #values)}, 2
  for i = 1, #values do
    fields[filled + 1] = whole(first_token + i - 1)
    fields[filled + 2] = values[i]
    filled = filled + 2
    if filled >= 1000 or i == #values then
      redis.call('HSET', inflight, unpack(fields))
      fields, filled = {}, 0
    end
  end
end
