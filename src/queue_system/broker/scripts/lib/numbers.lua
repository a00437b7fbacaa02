-- Numbers as arguments of commands.
-- Invariant a whole number is printed as one: the server prints what a script leaves to it with 17 digits, at ten times the price.

local function whole(value) return string.format('%d', value) end -- exact below 2^53
