-- Settles many deliveries of one incarnation, each with its verdict.
-- KEYS      1 prefix of every key
-- ARGV      1 incarnation · 2 settlement id, ending in a growing number · 3 most dead letters of a list
--           4 the command that writes many keys with one lifetime, "" where the server has none
--           then groups: verb · record lifetime in ms · count · and for each delivery
--             plain     token · id · record
--             complete  token · id · record · deduplication key · value of the callback item ("" for none)
--             fail      the same · dead letter for `failures`
--             reject    the same · dead letter for `system_errors`
--             discard   token · "" · body of the record · worker · value of the callback item · dead letter, as in reject:
--                       for what cannot be read, whose record is found by the id that it begins with
--             shelve    as reject, then for how many ms the item stays under the key to which it is moved as it is:
--                       for a verdict that the server refuses
--             retry     token · id · record · value of the changed item · delay in ms
--             decline   as reject, then for how many ms the item waits instead while that list is full
--             release   token
--             aside     token · for how many ms the item waits
--             running   token · id · record
--           An id of "" writes no record: the delivery was a callback, its verdict stands already.
-- Reply     a string with one code for each delivery: "d" done · "o" done, and the oldest letter went · "l" lost
--           · "k" kept, the letters being full; "lost" when the incarnation is unregistered
-- Uses      prefix workers settle_request records settle_back settle_for_good requeue delayed deduplication changes counters series verbs
-- Invariant sent again with the same settlement id it changes nothing and gives the same answer.
if not is_registered(incarnation) then return 'lost' end
local previous_id, answer = read_settle_note()
if previous_id == settlement_id then return answer end
local late = is_earlier(settlement_id, previous_id) -- held up on a lost connection, it was sent again long ago

local codes, settled, usual = {}, 0, not late and ARGV[5] == 'plain' and #ARGV == 7 + 3 * ARGV[7] and nobody_waits()
if usual then -- one group, of operations that have succeeded: nothing is to be seen to but their records
  local done, ttl_ms, writes = 0, ARGV[6], ARGV[4] ~= '' and ARGV[7] ~= '1' and {}
  for i = 8, #ARGV, 3 do
    settled = settled + 1
    if redis.call('HDEL', inflight, ARGV[i]) == 1 then -- not subject to maxmemory, so what follows is not either
      done = done + 1
      if writes then
        writes[2 * done - 1], writes[2 * done] = records .. ARGV[i + 1], ARGV[i + 2]
      else
        redis.call('SET', records .. ARGV[i + 1], ARGV[i + 2], 'PX', ttl_ms)
      end
      codes[settled] = DONE
    else
      codes[settled] = LOST
    end
  end
  if writes and done > 0 then write_records(ARGV[4], writes, done, ttl_ms) end
  if done > 0 then count('processed', done) end
else
  -- Rarely
  redis.call('LLEN', prefix() .. 'failures')
  redis.call('LLEN', prefix() .. 'system_errors')
  redis.call('ZCARD', delayed)
  redis.call('HLEN', dedup())
  if not late then redis.call('HDEL', inflight, '#settle') end -- not subject to maxmemory, so what follows is not either
  local position = 5
  while position <= #ARGV do
    local verb, ttl_ms, group = ARGV[position], ARGV[position + 1], tonumber(ARGV[position + 2])
    local settle, arity = apply[verb], ARITY[verb]
    position = position + 3
    for _ = 1, group do
      settled = settled + 1
      codes[settled] = not late and settle(position, ttl_ms) or LOST
      position = position + arity
    end
  end
  finish_requeue()
  for event, n in pairs(counts) do count(event, n) end
end
answer = table.concat(codes)
if not late then write_settle_note(answer) end
return answer
