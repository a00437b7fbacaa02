-- Frees the deduplication key of an operation that has ended.
-- Uses      deduplication
-- Invariant a key goes only while it names that operation.

local function release_key(key, id)
  if key ~= '' and redis.call('HGET', dedup(), key) == id then redis.call('HDEL', dedup(), key) end
end
