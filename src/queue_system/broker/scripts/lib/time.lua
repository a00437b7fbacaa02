-- The server's time, which is read once in a script.
-- Invariant now_us and now_ms are whole numbers far below 2^53, so they stay exact.

local time = redis.call('TIME')

local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local now_us = time[1] * 1000000 + time[2]
