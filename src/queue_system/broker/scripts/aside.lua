-- Keeps an item that is too large to be sent under a key of its own. Not a script of its own: it precedes those under Uses.
-- KEYS      1 prefix of every key
-- ARGV      as the script that uses it
-- Reply     none
-- Invariant the bytes stay as they came, for as long as dead letters are kept; what goes on in their place is small.
local function set_aside(token, item, kept_ms)
  local key = KEYS[1] .. 'oversized:' .. token
  redis.call('SET', key, item, 'PX', kept_ms)
  local head = string.sub(item, 1, 1024)
  local id = string.match(head, '^{"operation_id":"([^"\\%c]+)"') or ''
  local digits = string.gsub(head, '.', function(byte) return string.format('%02x', string.byte(byte)) end)
  return string.format('{"operation_id":"%s","kept_in":"%s","bytes":%.0f,"sha1":"%s","head":"%s"}',
    id, key, #item, redis.sha1hex(item), digits)
end
