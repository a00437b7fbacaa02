-- The server's time, which is read once in a script.
-- Invariant now_us and now_ms are whole numbers far below 2^53, so they stay exact.

local time = redis.call('TIME')

local now_us = time[1] * 1000000 + time[2]

local now_ms = (now_us - now_us % 1000) / 1000
