-- The note of an incarnation's last claim, by which it is known when it is sent again.
-- Owns      the field "#claim" in flight: claim id, first token, how many; between them spaces
-- Uses      tokens numbers
-- Invariant a note that no claim of ours wrote names none.

local function claim_note(claim_id, first, count) return claim_id .. ' ' .. whole(first) .. ' ' .. count end

-- The id of the last claim, and of one that is `claim_id` the first token and how many.
local function read_claim_note(note, claim_id)
  local id, first, count = string.match(note or '', '^(%S+) (%d+) (%d+)$')
  if id ~= claim_id then return id end
  if tonumber(first) >= MOST_TOKEN or tonumber(count) > 10000 then return nil end
  return id, tonumber(first), tonumber(count)
end
