"""What one incarnation holds, from its arrival to the answer to its settlement. Never talks to Redis."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from functools import partial

from queue_system.broker.replies import Claimed
from queue_system.clock import SYSTEM_CLOCK
from queue_system.errors import UndecodableItemError
from queue_system.execution.arrivals import Arrivals
from queue_system.execution.delivery import Buffer, Delivery
from queue_system.execution.outbox import Outbox
from queue_system.execution.reporting import Reporter
from queue_system.execution.settlement import Settler, Timing
from queue_system.model.discarded import readable_id
from queue_system.model.formats import new_worker_id, split_value
from queue_system.model.keys import queue_name, split_queue
from queue_system.model.operation import Operation, check_size, decode_item
from queue_system.model.oversized import read_oversized
from queue_system.model.signing import Signer
from queue_system.model.verdict import Reject, Release

_SUSPECT_FROM = 2
_TURN_S = 0.05
_TURNS_AT_MOST_S = 1.0
_NAMELESS = Operation(processor="")


class InFlight:
    """The deliveries of one incarnation at a time; what is handed back without having run goes to the outbox.

    An item that was in flight at two deaths of its worker is a suspect: it waits apart, and starts only when nothing
    else is in flight in this process, so that poison is not confused with its neighbours.
    """

    def __init__(self, settler: Settler, reporter: Reporter, signer: Signer | None = None) -> None:
        self.settler = settler
        self.incarnation = self._new_incarnation()
        self.held: dict[int, Delivery] = {}
        """All of them by their token, until their settlement was answered."""
        self.arrivals = Arrivals()
        self.buffer = Buffer()
        """Those that wait for a slot."""
        self.outbox = Outbox()
        """What is settled and has not been sent."""
        self.newest = 0
        """The newest token that the server had given out to any worker when it answered the last claim taken in."""
        self.releasing: set[int] = set()
        """Tokens that are handed back though no delivery of theirs has come."""
        self._suspects: deque[Delivery] = deque()
        self._aside_until = 0.0
        """Until when, on the monotonic clock, suspects wait that were set aside."""
        self._queues: set[bytes] = set()
        """The queues that deliveries came from: their names are checked once."""
        self._max_item_bytes = settler.max_item_bytes
        self._reporter = reporter
        self._signer = signer

    def renew(self) -> None:
        """Drop everything and begin a new incarnation."""
        self.incarnation = self._new_incarnation()
        self.held.clear()
        self.buffer.drain()
        self.outbox.clear()
        self.arrivals.clear()
        self._suspects.clear()
        self.releasing.clear()

    def _new_incarnation(self) -> str:
        return new_worker_id(self.settler.worker_name)

    @property
    def waiting(self) -> int:
        """How many wait for a slot, or for their turn as a suspect."""
        return len(self.buffer) + len(self._suspects)

    @property
    def startable(self) -> int:
        """How many wait for a slot, those included that were claimed and have yet to be taken in."""
        return len(self.buffer) + self.arrivals.deliveries

    @property
    def isolating(self) -> bool:
        """Whether a suspect waits or runs, so that nothing else may be claimed."""
        if self._suspects:
            return True
        return len(self.held) == 1 and next(iter(self.held.values())).operation.crashes >= _SUSPECT_FROM

    @property
    def suspected(self) -> bool:
        """Whether a suspect waits."""
        return bool(self._suspects)

    @property
    def only_suspects(self) -> bool:
        """Whether nothing is held but suspects that wait."""
        return len(self.held) == len(self._suspects)

    @property
    def vacant(self) -> bool:
        """Whether nothing is booked on this incarnation, as far as is known here."""
        return not (self.held or self.arrivals or self.releasing)

    def claimed(self, claimed: Claimed) -> None:
        """Note what a claim brought; it is held when the arrivals are taken in."""
        self.arrivals.add(partial(self._accept_all, claimed), len(claimed.values))

    def _accept_all(self, claimed: Claimed) -> None:
        self.newest = claimed.first_token + len(claimed.values) - 1
        for token, value in enumerate(claimed.values, claimed.first_token):
            if value is not None and token not in self.releasing:
                self.accept(token, value, claimed.now_ms)

    def accept(self, token: int, value: bytes, now_ms: int) -> None:
        """Take in one value; what cannot be verified or decoded is rejected at once."""
        queue, _, item = split_value(value)
        now = SYSTEM_CLOCK.monotonic()
        try:
            if queue not in self._queues:
                if split_queue(queue) is None:
                    raise UndecodableItemError("it did not come from a queue of ours")
                self._queues.add(queue)
            if self._signer is not None:
                check_size(item, self._max_item_bytes)
                item = self._signer.verify(queue, item)
            operation = decode_item(item, self._max_item_bytes)
        except UndecodableItemError as error:
            delivery = self.held[token] = Delivery(self.incarnation, token, queue, item, _NAMELESS, now)
            oversized = read_oversized(item, token)
            verdict = Reject(oversized.reason(self._max_item_bytes) if oversized else str(error), type(error).__name__)
            self._reporter.judged(readable_id(item) or f"token-{token}", "", verdict, timed_out=False)
            settlement = self.settler.discard(delivery, verdict.error, verdict.error_type, Timing(now_ms, now_ms))
            self.outbox.put(settlement)
            return
        delivery = self.held[token] = Delivery(self.incarnation, token, queue, item, operation, now)
        if operation.crashes >= _SUSPECT_FROM:
            self._suspects.append(delivery)
        else:
            self.buffer.put(delivery)

    def release_waiting(self, keep: int = 0) -> None:
        """Hand back what waits for a slot, in such an order that it is next in its list; not the `keep` next to start.

        Those are for free slots: handed back, they would be claimed for the same slots again.
        """
        waiting = self.buffer.drain()
        for delivery in waiting[:keep]:
            self.buffer.put(delivery)
        self._release([*self._suspects, *waiting[keep:]])
        self._suspects.clear()

    def release_queues(self, names: Collection[str]) -> None:
        """Hand back what waits for a slot and is of these queues; the rest goes on waiting."""
        waiting = self.buffer.drain()
        self._release([delivery for delivery in waiting if queue_name(delivery.queue) in names])
        for delivery in waiting:
            if queue_name(delivery.queue) not in names:
                self.buffer.put(delivery)

    def release_unknown(self, incarnation: str, tokens: Sequence[int]) -> None:
        """Hand back tokens that the server books on this incarnation and nobody here knows; none is started later.

        They may yet come: a claim whose reply was lost is sent again. Those of a lost incarnation are left alone.
        """
        if incarnation != self.incarnation:
            return
        unknown = [token for token in tokens if token not in self.held and token not in self.releasing]
        self.releasing.update(unknown)
        self._release([Delivery(incarnation, token, b"", b"", _NAMELESS, 0.0) for token in unknown])

    @property
    def aside_s(self) -> float:
        """In how many s suspects that were set aside come back; not above 0 where there are none."""
        return self._aside_until - SYSTEM_CLOCK.monotonic()

    def isolate(self, *, alone: bool = True, aside_s: float = 0.1) -> bool:
        """Let the first suspect start if it is all that is held; hand back what stands in its way.

        `alone` says whether nothing else is held in this process. Other suspects wait for `aside_s`.
        """
        if not self._suspects:
            return False
        self._release(self.buffer.drain())
        self.set_suspects_aside(aside_s, keep=1)
        if not alone or len(self.held) != 1 or self.arrivals:
            return False
        self.buffer.put(self._suspects.popleft())
        return True

    def set_suspects_aside(self, wait_s: float, *, keep: int = 0) -> None:
        """Let all suspects but the first few wait for a while as delayed items, so that they block nothing.

        They come back one after the other: the one that has waited longest first, and each perhaps to another process.
        """
        if len(self._suspects) > keep:
            self._aside_until = SYSTEM_CLOCK.monotonic() + wait_s
        while len(self._suspects) > keep:
            turns_s = min(_TURN_S * (len(self._suspects) - keep - 1), _TURNS_AT_MOST_S)
            self.outbox.put(self.settler.settle(self._suspects.pop(), Release(wait_s + turns_s)))

    def _release(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in reversed(deliveries):
            self.outbox.put(self.settler.settle(delivery, Release()))
