-- Decides which priorities a claim may serve. What else holds queues back belongs here, too.
-- Uses      queues
-- Invariant while more is due than was promoted, which may be of any priority, only what is high is served.

local function admitted(is_behind) return is_behind and {'high'} or PRIORITIES end
