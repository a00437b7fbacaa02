-- What a claim asks for.
-- Owns      ARGV of claim.lua
-- Invariant names are those served, or those left out, each behind a "!".

local incarnation, claim_id, wanted, adopted = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local largest, most_sent, kept_ms, FIRST_NAME = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], 8

local left_out, serves_named = {}, false
for i = FIRST_NAME, #ARGV do
  if string.byte(ARGV[i]) == 33 then left_out[string.sub(ARGV[i], 2)] = true else serves_named = true end -- 33 is "!"
end
