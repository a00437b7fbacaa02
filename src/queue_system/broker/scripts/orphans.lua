-- Declares dead the incarnations that hold something and have no entry, as after the loss of the key of all entries.
-- KEYS      1 prefix of every key
-- ARGV      1 cursor in the hash of all incarnations ("" to look at those given) · then incarnations
-- Reply     {next cursor, how many were found}
-- Uses      workers inflight
-- Invariant what is registered, or declared dead already, is left as it is.
local cursor, names, found = ARGV[1], {}, 0
redis.call('HLEN', workers)
for i = 2, #ARGV do names[i - 1] = ARGV[i] end
if cursor ~= '' then
  local page = redis.pcall('HSCAN', known, cursor, 'COUNT', 500)
  if page.err then return {'0', 0} end
  cursor = page[1]
  for i = 1, #page[2], 2 do names[#names + 1] = page[2][i] end
end
for _, name in ipairs(names) do
  if not is_registered(name) and not is_registered(dead(name)) then
    local held = redis.pcall('HLEN', inflight_of(name))
    if type(held) == 'number' and held > 0 then
      redis.call('HDEL', workers, dead(name)) -- not subject to maxmemory, so what follows is not either
      redis.call('HSET', workers, dead(name), NO_LEASE)
      found = found + 1
    elseif ARGV[1] ~= '' then
      redis.pcall('HDEL', known, name)
    end
  end
end
return {cursor, found}
