-- Cuts a dead letter to what is read to learn its age.
-- Invariant a letter of up to 64 KiB is whole; of a larger one the end is left, where our dead letters say why they are here.

local function part(letter)
  if #letter <= 65536 then return letter end
  return string.sub(letter, -4096)
end
