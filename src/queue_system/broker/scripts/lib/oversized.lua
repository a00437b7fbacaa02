-- Keeps an item that is too large to be sent under a key of its own.
-- Owns      `oversized:TOKEN`: the item · what goes on in its place
-- Uses      prefix items
-- Invariant the bytes stay as they came, for as long as dead letters are kept; what goes on in their place is small.

local function oversized_key(token) return prefix() .. 'oversized:' .. token end

local function set_aside(token, item, kept_ms)
  local key, head = oversized_key(token), string.sub(item, 1, 1024)
  redis.call('SET', key, item, 'PX', kept_ms)
  local id = id_of(head) or ''
  if string.find(id, '%c') then id = '' end
  local digits = string.gsub(head, '.', function(byte) return string.format('%02x', string.byte(byte)) end)
  return string.format('{"operation_id":"%s","kept_in":"%s","bytes":%.0f,"sha1":"%s","head":"%s"}',
    id, key, #item, redis.sha1hex(item), digits)
end
