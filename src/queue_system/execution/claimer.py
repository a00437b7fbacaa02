"""Claims: what, how much, when and under which id; and what a claim has brought."""

from __future__ import annotations

import asyncio
import itertools
import math
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from queue_system.broker.commands import Commands
from queue_system.broker.protocol import Command
from queue_system.broker.replies import Claimed
from queue_system.clock import SYSTEM_CLOCK
from queue_system.execution.dispatcher import Dispatcher
from queue_system.execution.executor import Executor
from queue_system.execution.inflight import InFlight
from queue_system.execution.long_poll import LongPoll
from queue_system.execution.prefetch import LARGEST_TURN, RELEASE_AFTER_S, Prefetch, block_seconds
from queue_system.execution.quarantine import PROCESS, Seat
from queue_system.execution.rests import Rests
from queue_system.execution.server_clock import ServerClock
from queue_system.execution.suspects import Suspects
from queue_system.metrics import StructuredLogger

LOOK_EVERY_S = 0.2

Claim: TypeAlias = tuple[str, int]
"""Its id, and how much it asks for; sent again, it is the same claim."""


@dataclass(eq=False, slots=True)
class Claimer:
    """Claims what the slots can take: in the turns, and with a long poll while there is no work.

    There is one claim at a time. It keeps its id until it has been answered, whichever connection it is sent on.
    """

    commands: Commands
    log: StructuredLogger
    names: list[str]
    """The queues served; none: all."""
    executor: Executor
    inflight: InFlight
    dispatcher: Dispatcher
    prefetch: Prefetch
    rests: Rests
    clock: ServerClock
    long_poll: LongPoll
    lose: Callable[[str], None]
    """Called with an incarnation that the server knows no longer."""
    take_in: Callable[[], None]
    """Called when a long poll was answered, which no turn awaits."""
    seat: Seat = field(init=False)
    """This worker's place in its process, which a suspect may have for itself."""
    next_due_ms: int = field(default=-1, init=False)
    """When the next delayed item is due by the server's time, as the last answer said; -1: there is none."""
    _suspects: Suspects = field(init=False)
    _series: str = field(default_factory=lambda: f"{secrets.token_hex(4)}.c", init=False)
    """What the ids of claims begin with; a stranger who writes into our hash does not know it."""
    _serial: Iterator[int] = field(default_factory=lambda: itertools.count(1), init=False)
    _claims_in_turns: bool = field(default=True, init=False)
    """Whether turns claim: not where single items are handled, nor once the worker stops."""
    _claim: Claim | None = field(default=None, init=False)
    """The claim that turns send until it is answered. That of a long poll becomes it, if it fails or is given up."""
    _drained: bool = field(default=False, init=False)
    """Whether the last answer left nothing to claim, so that the next claim waits for the wake-up marker."""
    _look_again_at: float = field(default=0.0, init=False)
    """When, on the monotonic clock, to claim again without that wait; 0: never.

    Set while all that is left is of queues at rest here: the marker is for other workers, and no poll may take it.
    """
    _largest_seen: int = field(default=0, init=False)
    """The size of the largest item of the last claim that brought any: what the next one may expect."""

    def __post_init__(self) -> None:
        held = self.inflight
        loop = asyncio.get_running_loop()
        self.seat = PROCESS.seat(loop, lambda: bool(held.held), self.dispatcher.changed.set)
        self._suspects = Suspects(held, self.seat, self._is_under_way, self._end_long_poll)

    @property
    def awaits_answer(self) -> bool:
        """Whether a claim is under way whose answer the next turns await; a long poll is none."""
        return self._claim is not None

    @property
    def newest(self) -> float:
        """The newest token that no claim under way may yet bring."""
        return self.inflight.newest if self._is_under_way() or self.inflight.arrivals else math.inf

    def tend(self, now: float) -> None:
        """Hand back what waits too long or is of a queue at rest, and let a suspect start."""
        held = self.inflight
        if held.buffer and (resting := self.rests.resting()):
            held.release_queues(resting)
        oldest = held.buffer.oldest_claimed()
        if oldest is not None:
            self.prefetch.observe_wait(now - oldest)
            coming = self._claim is not None or held.arrivals.deliveries  # it would overtake what goes back now
            if now - oldest > RELEASE_AFTER_S and not coming:
                held.release_waiting(keep=self.executor.free if self.dispatcher.is_open else 0)
        if self.isolate():
            self.dispatcher.wake()

    @property
    def is_due(self) -> bool:
        """Whether the next turn may have something to claim or to wait for; it looks closer."""
        if self._suspects.concern:
            return True
        waits = self._drained and (self.long_poll.waits or self._look_again_at > 0)
        return self._claim is None and not waits and self._room() > 0

    def pause_s(self) -> float | None:
        """Return in how many s `tend` is due again, None where nothing that it looks at waits."""
        if self.inflight.buffer or self.inflight.suspected or self.seat.owns:
            return RELEASE_AFTER_S / 2
        return None

    def choose(self, *, registered: bool) -> Claim | None:
        """Return the claim that this turn sends, if any; where nothing is left to claim, begin a long poll instead."""
        if self._claim is None and (wanted := self._wanted(registered=registered)):
            if not self._drained or 0 < self._look_again_at <= SYSTEM_CLOCK.monotonic():
                self._claim = self._new_claim(wanted)
            elif not (self.long_poll.waits or self._look_again_at):
                self._claim_when_woken(self._new_claim(wanted))
        return self._claim

    def command(self, claim: Claim) -> Command[Claimed | None]:
        """Return what sends a claim."""
        names = self._served()
        return self.commands.claim(self.inflight.incarnation, *claim, names, expected=self._largest_seen)

    def answered(self, claimed: Claimed | None, incarnation: str) -> None:
        """Note the answer to a claim, None if the server does not know the incarnation that has asked."""
        if incarnation != self.inflight.incarnation:
            self._drained = False  # one that waited was woken under a name that no longer counts
            return
        self._claim = None
        if claimed is None:
            self.lose(incarnation)
            return
        self.clock.learn(claimed.now_ms)
        self.next_due_ms = claimed.next_due_ms
        self._drained = not claimed.more
        self._look_again_at = SYSTEM_CLOCK.monotonic() + LOOK_EVERY_S if claimed.left_behind else 0.0
        if claimed.values:
            self._largest_seen = claimed.largest
        if claimed.more and claimed.values and self.dispatcher.starved:
            self.prefetch.observe_starving()
        self.dispatcher.starved = False
        for key in claimed.wrong_keys:
            self.log.error("a list holds a foreign type and is skipped", key=key.decode(errors="replace"))
        self.inflight.claimed(claimed)
        self.dispatcher.note_claim(len(claimed.values), self.executor.last_start)

    def isolate(self) -> bool:
        """Let a suspect start if it is its turn; return whether it did."""
        if not self._suspects.concern:
            return False
        more = self._claims_in_turns and not self._drained
        return self._suspects.tend(running=self.executor.running > 0, is_open=self.dispatcher.is_open, more=more)

    def claim_singly(self) -> None:
        """Let no turn claim from now on."""
        self._claims_in_turns = False

    async def claim_one(self, adopt: bytes) -> Command[Claimed | None]:
        """Return what claims a single item, or books one that was taken from its list, which is to be sent at once."""
        if adopt:
            self.seat.busy = True  # it must be booked, whichever worker has the process
        else:
            await self.seat.wait()
        self._claim = claim = self._new_claim(1)
        return self.commands.claim(self.inflight.incarnation, *claim, self.names, adopt=adopt)

    async def stop(self) -> None:
        """Claim and start no more, and end the long poll."""
        self._claims_in_turns = False
        self.dispatcher.closed = True
        await self.long_poll.end()

    def release_waiting(self) -> None:
        """Hand back what no slot has taken; not while a claim may bring more, so that the old order stays."""
        if self._claim is None and not self.inflight.arrivals:
            self.inflight.release_waiting()

    def renew(self) -> None:
        """Note that the incarnation was reclaimed. A long poll goes on: dropped, it could take the wake-up along."""
        self._suspects.drop()
        self._drained = False
        self._claim = None

    def leave_process(self) -> None:
        """Note that the worker has ended."""
        PROCESS.remove(self.seat)

    def _wanted(self, *, registered: bool) -> int:
        unsure = not (registered and self.dispatcher.is_open)  # who claims must beat while the answer is under way
        outbox = self.inflight.outbox
        behind = len(outbox) >= LARGEST_TURN  # what is claimed now could not be settled in time
        behind = behind or outbox.hands_back  # what is claimed now would overtake it
        served = self.rests.served(self.names)
        if not self._claims_in_turns or unsure or behind or self.seat.yields or served is None:
            return 0
        return self._suspects.room(self._room())

    def _room(self) -> int:
        return self.prefetch.room(self.executor.free, self.inflight.startable)

    def _served(self) -> list[str]:
        return self.rests.served(self.names) or self.names

    def _new_claim(self, wanted: int) -> Claim:
        return f"{self._series}{next(self._serial)}", wanted

    def _is_under_way(self) -> bool:
        return self._claim is not None or self.long_poll.waits

    def _claim_when_woken(self, claim: Claim) -> None:
        incarnation = self.inflight.incarnation
        self.long_poll.asked = claim[0]

        def answered(claimed: Claimed | None) -> None:
            self.answered(claimed, incarnation)
            self.take_in()

        def failed() -> None:
            self._drained = False
            if incarnation == self.inflight.incarnation:
                self._claim = claim  # the main connection asks again, under the same id
                self.dispatcher.changed.set()

        block_s = block_seconds(self.next_due_ms, self.clock.now_ms(), self._put_off_s())
        names = self._served() if self.names else ()
        self.long_poll.start(names, self.command(claim), block_s, answered, failed)

    def _put_off_s(self) -> float | None:
        """Return in how many s there may be work again that this worker has put off; None if it has put off none."""
        rest_s = self.rests.left_s()
        aside_s = self.inflight.aside_s
        return rest_s if aside_s <= 0 else min(aside_s, aside_s if rest_s is None else rest_s)

    def _end_long_poll(self) -> None:
        """Let the main connection ask what the long poll has brought; it brings nothing more."""
        if (claim_id := self.long_poll.cancel()) is not None and self._claim is None:
            self._claim = claim_id, 0
