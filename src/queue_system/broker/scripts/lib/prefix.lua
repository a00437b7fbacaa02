-- The one key that a script is given: every other begins with it, and so lies in the same slot of a cluster.
-- Invariant no script touches a key that does not begin with it.

local function prefix() return KEYS[1] end
