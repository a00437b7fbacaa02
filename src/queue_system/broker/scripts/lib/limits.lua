-- How much one script reads or moves.
-- Invariant with its last item a script may go beyond it, by that item at most.

local MOST_BYTES = 8388608
