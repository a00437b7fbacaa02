-- Promotes what is due, then moves ready items in flight, by priority and in turn among queues, each under a fresh token.
-- KEYS      1 prefix of every key
-- ARGV      1 incarnation · 2 claim id, ending in a growing number · 3 how many · 4 a value to take in flight instead of popping ("" for none)
--           5 size of the largest item that is expected · 6 of the largest that is sent · 7 for how many ms a larger one is kept
--           then the names of the queues served (none: all), or of those left out, each behind a "!"
-- Reply     {"lost"}, or {"claimed", server ms, ms of the next due item or -1, 1 if servable items remain, 2 if only left-out ones do,
--           keys dropped for their type, first token, size of the largest item, value...}; a value is "high:NAME\n" + item;
--           tokens are consecutive; without values, the first token is the one that follows the last token given out
-- Uses      claim_request workers inflight pass_on claim_note series tokens queues ready promote admit serve serve_all
-- Uses      serve_named take_in_flight wake time
-- Invariant a lost claim takes nothing, and passes on the wake-up that it may have used; the same claim id again gives the same values that are still in flight, an earlier one that comes late takes
--           nothing; an item is never outside both places. About 8 MiB are promoted, and about as many popped. As long as
--           more is due than was promoted, which may be of any priority, only what is high is popped.
local inflight, registered = inflight_of(incarnation), is_registered(incarnation)
local note = registered and redis.call('HGET', inflight, '#claim')
local last, due_ms = registered and noted_token() or 0, registered and next_due_ms() or nil
first_token, fresh_token = last + 1, math.max(last + 1, now_us)
local previous = note and string.match(note, '^%S+') or nil
local place, more, nothing_new = 1, false, false

-- The usual case: a new claim of all queues, nothing is due, and of each priority one queue is ready at most.
local usual = last > 0 and adopted == '' and #ARGV < FIRST_NAME and not (due_ms and due_ms <= now_ms)
  and previous ~= claim_id and not is_earlier(claim_id, previous)
while usual and place <= #PRIORITIES and (has_room() or not more) do
  local ready = redis.pcall('ZRANGE', ready_index(PRIORITIES[place]), '0', '1')
  usual = #ready < 2
  if usual and ready[1] then more = serve(PRIORITIES[place], ready[1], wanted - #values, true) or more end
  if usual then place = place + 1 end
end
if not usual then
  -- Rarely
  if not registered then
    pass_on_wake_up()
    return {'lost'}
  end
  if last == 0 then
    first_token = highest_token(inflight) + 1
    fresh_token = math.max(first_token, now_us)
  end
  local previous_id, replayed_first, replayed_count = read_claim_note(note, claim_id)
  if previous_id == claim_id then
    replay(inflight, replayed_first, replayed_count)
    nothing_new = true
  elseif is_earlier(claim_id, previous_id) then -- it was held up on a lost connection, and sent again long ago
    nothing_new = true
  elseif adopted ~= '' then
    adopt(inflight)
  else
    if due_ms and due_ms <= now_ms then
      promote()
      due_ms = next_due_ms()
    end
    local behind = due_ms and due_ms <= now_ms
    local priorities, serve_queues = admitted(behind), serves_named and serve_named or serve_all
    for i = place, #priorities do
      if serves_named or has_room() or not more then more = serve_queues(priorities[i]) or more end
    end
    more = more or behind
  end
end
if not nothing_new then
  take_in_flight(inflight)
  if (more or left_behind) and not serves_named then wake_up(wake()) end
end

local reply = {'claimed', now_ms, due_ms or -1, more and 1 or left_behind and 2 or 0, wrong, first_token, seen}
for i = 1, #values do reply[i + 7] = values[i] end
return reply
