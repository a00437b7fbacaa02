"""When a worker's suspects of being poison run: alone in their process, and not at the cost of all others. No I/O."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

from queue_system.execution.inflight import InFlight
from queue_system.execution.quarantine import Seat

LONGEST_S: Final = 1.0
"""For how long a suspect waits at most before it is looked at again, here or in another process."""
SHORT_S: Final = 0.1
"""For how long one waits at least."""


class Probe(enum.Enum):
    """Whether a single claim looks for the next suspect."""

    NONE = enum.auto()
    WANTED = enum.auto()
    """The next turn is to claim one."""
    ASKED = enum.auto()
    """It was claimed, and what it brings decides."""


class Suspects:
    """Lets a worker's suspects start one after the other, each when nothing else is in flight in the process.

    Others start nothing meanwhile. A suspect that cannot start within a fraction of a second is set aside for a while,
    and so are all that come while the others have their turn, which is longer by far.
    """

    def __init__(
        self, inflight: InFlight, seat: Seat, under_way: Callable[[], bool], end_long_poll: Callable[[], None]
    ) -> None:
        self._inflight = inflight
        self._seat = seat
        self._under_way = under_way
        self._end_long_poll = end_long_poll
        self._probe = Probe.NONE
        """Only of use while this worker has the process for itself."""

    @property
    def concern(self) -> bool:
        """Whether a suspect of any worker of the process has to be thought of, which is rare."""
        return self._seat.taken or self._inflight.suspected

    def tend(self, *, running: bool, is_open: bool, more: bool) -> bool:
        """Do what is due; return whether a suspect may start.

        `running` says whether anything runs in this worker, `is_open` whether something may start, `more` whether there
        may be more to claim.
        """
        seat = self._seat
        held = self._inflight
        if seat.yields:
            self._make_room()
        elif held.suspected:
            return self._start(is_open=is_open)
        elif seat.owns:
            seat.seen = seat.quarantine.now()
            self._go_on(running=running, is_open=is_open, more=more)
        return False

    def room(self, room: int) -> int:
        """Return how many deliveries may be claimed of `room`, which the slots could take: one after a suspect."""
        if self._seat.owns:
            if not room or self._probe is not Probe.WANTED:
                return 0
            self._probe = Probe.ASKED
            return 1
        if not room or self._inflight.isolating or not self._seat.enter():
            return 0
        return room

    def drop(self) -> None:
        """Note that all is lost that was held."""
        self._seat.quarantine.end(self._seat, in_vain=False)

    def _make_room(self) -> None:
        """Hand back what waits, for another worker's suspect, and say so once nothing is held any more."""
        self._end_long_poll()
        self._inflight.release_waiting()
        if self._seat.busy and self._is_vacant():
            self._seat.vacate()

    def _start(self, *, is_open: bool) -> bool:
        seat = self._seat
        held = self._inflight
        self._probe = Probe.NONE
        if not seat.quarantine.ask(seat, empty=held.only_suspects):
            self._set_aside()
            return False
        seat.seen = seat.quarantine.now()
        self._end_long_poll()
        if held.isolate(alone=is_open and seat.alone and not self._under_way(), aside_s=SHORT_S):
            seat.quarantine.begin()
            return True
        if seat.quarantine.is_overdue() and held.suspected:
            seat.quarantine.end(seat, in_vain=True)
            self._set_aside()
        return False

    def _set_aside(self) -> None:
        """Let suspects come back when one may have this process again; another process may take them before."""
        self._inflight.set_suspects_aside(min(max(self._seat.quarantine.rest_s(), SHORT_S), LONGEST_S))

    def _go_on(self, *, running: bool, is_open: bool, more: bool) -> None:
        """After a suspect, look whether the next is one, too; else let the others have the process again."""
        held = self._inflight
        if running or held.buffer:
            if not held.isolating:  # what follows a suspect is none
                self._end()
            return
        if not is_open or not more or not self._seat.quarantine.may_go_on():
            self._end()
        elif self._probe is Probe.NONE:
            if not self._under_way():
                self._probe = Probe.WANTED  # the claim travels behind the suspect's settlement
        elif self._probe is Probe.ASKED and self._is_vacant():
            self._end()

    def _end(self) -> None:
        self._probe = Probe.NONE
        self._seat.quarantine.end(self._seat, in_vain=False)

    def _is_vacant(self) -> bool:
        return self._inflight.vacant and not self._under_way()
