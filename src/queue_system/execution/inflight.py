"""What one incarnation holds: deliveries that wait, run or await their settlement. Never talks to Redis."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import partial

from queue_system.broker.replies import Claimed
from queue_system.clock import SYSTEM_CLOCK
from queue_system.errors import QueueSystemError, UndecodableItemError
from queue_system.execution.delivery import Buffer, Delivery
from queue_system.execution.reporting import Reporter
from queue_system.execution.rests import Rests, may_be_known
from queue_system.execution.settlement import Batch, Outbox, Settlement, Settler, Timing
from queue_system.model.discarded import readable_id
from queue_system.model.formats import new_worker_id, split_value
from queue_system.model.keys import queue_name, split_queue
from queue_system.model.operation import Operation, check_size, decode_item
from queue_system.model.oversized import read_oversized
from queue_system.model.sealing import Sealing
from queue_system.model.states import Code, Verb
from queue_system.model.verdict import Reject, Release, Unprocessable
from queue_system.tracebacks import trace

_SUSPECT_FROM = 2
_TURN_S = 0.05
_TURNS_AT_MOST_S = 1.0
_LOST, _KEPT, _WENT = (ord(code) for code in (Code.LOST, Code.KEPT, Code.WENT))
_NAMELESS = Operation(processor="")


def full_name(operation: Operation) -> str:
    """Return the processor of an operation, with its module if that is told."""
    module = f"{operation.processor_module}." if operation.processor_module else ""
    return f"{module}{operation.processor}"


class InFlight:
    """The deliveries of one incarnation at a time, from their arrival to the answer to their settlement.

    An item that was in flight at two deaths of its worker is a suspect: it waits apart, and starts only when nothing
    else is in flight in this process, so that poison is told from its neighbours.
    """

    def __init__(
        self, settler: Settler, reporter: Reporter, sealing: Sealing | None = None, rests: Rests | None = None
    ) -> None:
        self.settler = settler
        self.rests = rests or reporter.new_rests()
        self.incarnation = self._new_incarnation()
        self.held: dict[int, Delivery] = {}
        self.buffer = Buffer()
        self.outbox = Outbox()
        self.arrived: list[Callable[[], None]] = []
        """Answers that have yet to be taken in, while the server already works on the next turn."""
        self.arriving = 0
        """How many deliveries are among them."""
        self.newest = 0
        """The newest token that the server had given out, to whomever, when it answered the last claim taken in."""
        self._suspects: deque[Delivery] = deque()
        self._aside_until = 0.0
        self._releasing: set[int] = set()
        self._queues: set[bytes] = set()
        self._max_item_bytes = settler.max_item_bytes
        self._reporter = reporter
        self._sealing = sealing

    def renew(self) -> None:
        """Drop everything and begin a new incarnation."""
        self.incarnation = self._new_incarnation()
        self.held.clear()
        self.buffer.drain()
        self.outbox.clear()
        self.arrived.clear()
        self.arriving = 0
        self._suspects.clear()
        self._releasing.clear()

    def _new_incarnation(self) -> str:
        return new_worker_id(self.settler.worker_name)

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
        return not (self.held or self.arrived or self._releasing)

    def claimed(self, claimed: Claimed) -> None:
        """Learn what a claim brought; `take_in` does the rest."""
        self.arriving = len(claimed.values)
        self.arrived.append(partial(self._accept_all, claimed))

    def answered(self, batch: Batch, codes: bytes, now_ms: int) -> None:
        """Learn the answer to a batch, a code for each settlement; `take_in` does the rest."""
        self.arrived.append(partial(self._book, batch, codes, now_ms))

    def take_in(self) -> bool:
        """Do what the answers ask for: book settlements, let slots have what was claimed. False: there were none."""
        arrived = self.arrived
        self.arrived = []
        self.arriving = 0
        for arrival in arrived:
            arrival()
        return bool(arrived)

    def _accept_all(self, claimed: Claimed) -> None:
        self.newest = claimed.first_token + len(claimed.values) - 1
        for token, value in enumerate(claimed.values, claimed.first_token):
            if value is not None and token not in self._releasing:
                self.accept(token, value, claimed.now_ms)

    def accept(self, token: int, value: bytes, now_ms: int) -> None:
        """Take in one value; what cannot be verified or decoded is rejected at once."""
        queue, _, item = split_value(value)
        now = SYSTEM_CLOCK.monotonic()
        try:
            if queue not in self._queues:
                if split_queue(queue) is None:
                    raise UndecodableItemError("it came from no queue of ours")
                self._queues.add(queue)
            if self._sealing is not None:
                check_size(item, self._max_item_bytes)
                item = self._sealing.verify(queue, item)
            operation = decode_item(item, self._max_item_bytes)
        except UndecodableItemError as error:
            delivery = self.held[token] = Delivery(self.incarnation, token, queue, item, _NAMELESS, now)
            oversized = read_oversized(item, token)
            verdict = Reject(oversized.reason(self._max_item_bytes) if oversized else str(error), type(error).__name__)
            self._reporter.judged(readable_id(item) or f"token-{token}", "", verdict, timed_out=False)
            settlement = self.settler.discard(delivery, verdict.error, verdict.error_type, Timing(now_ms, now_ms))
            self.put(settlement)
            return
        delivery = self.held[token] = Delivery(self.incarnation, token, queue, item, operation, now)
        if operation.crashes >= _SUSPECT_FROM:
            self._suspects.append(delivery)
        else:
            self.buffer.put(delivery)

    def put(self, settlement: Settlement) -> None:
        """Take a settlement for the next turn; that of a lost incarnation is dropped."""
        if settlement.delivery.incarnation == self.incarnation:
            self.outbox.put(settlement)

    def _book(self, batch: Batch, codes: bytes, now_ms: int) -> None:
        """Count what the server accepted; a callback comes back as a delivery."""
        done = []
        running = Verb.RUNNING
        for settlement, code in zip(batch.settlements, codes, strict=True):
            if settlement.verb is running:
                continue
            token = settlement.delivery.token
            self.held.pop(token, None)
            self._releasing.discard(token)
            if code == _LOST:
                if settlement.verb is not Verb.RELEASE:  # what was to be handed back is elsewhere already
                    self._reporter.lease_lost(1)
                continue
            if settlement.declined is not None and self._was_kept(settlement, settlement.declined, code):
                continue
            done.append(settlement)
            if settlement.follow_up:
                self.accept(token, settlement.follow_up, now_ms)
        self._reporter.settled(done)
        if _WENT in codes:
            self._reporter.letters_went(codes.count(_WENT))

    def _was_kept(self, settlement: Settlement, declined: Reject, code: int) -> bool:
        """Tell whether an operation waits on, because the system errors are full; log what became of it."""
        delivery = settlement.delivery
        operation = settlement.delivery.operation
        queue = queue_name(delivery.queue)
        if code == _KEPT:
            self.rests.refused(queue, delivery.operation_id, full_name(operation), declined.error)
            return True
        self.rests.accepted(queue)
        self._reporter.judged(delivery.operation_id, operation.processor, declined, timed_out=False)
        return False

    def release_waiting(self, keep: int = 0) -> None:
        """Hand back what waits for a slot, in such an order that it is next in its list; not the `keep` next to start.

        Those are for free slots: handed back, they would be claimed for the same slots again.
        """
        waiting = self.buffer.drain()
        for delivery in waiting[:keep]:
            self.buffer.put(delivery)
        self._release([*self._suspects, *waiting[keep:]])
        self._suspects.clear()

    def unresolved(self, delivery: Delivery, error: QueueSystemError) -> Unprocessable:
        """Judge an operation that names what this worker does not know; hand back others of a queue that now rests."""
        rests = self.rests
        name = queue_name(delivery.queue)
        operation = delivery.operation
        if not may_be_known(operation.processor, operation.processor_module):
            return Unprocessable(str(error), type(error).__name__)
        wait_s, must_wait = rests.missed(name, f"{full_name(operation)}: {error}")
        if self.buffer and (resting := rests.resting()):
            self.release_queues(resting)
        return Unprocessable(str(error), type(error).__name__, wait_s, must_wait, trace(error))

    def release_queues(self, names: Collection[str]) -> None:
        """Hand back what waits for a slot and is of these queues; the rest goes on waiting."""
        waiting = self.buffer.drain()
        self._release([delivery for delivery in waiting if queue_name(delivery.queue) in names])
        for delivery in waiting:
            if queue_name(delivery.queue) not in names:
                self.buffer.put(delivery)

    def release_unknown(self, incarnation: str, tokens: Sequence[int]) -> None:
        """Hand back tokens that the server books on this incarnation and nobody here knows; none is started later.

        They may yet come: a claim whose reply was lost is sent again.
        """
        unknown = [token for token in tokens if token not in self.held and token not in self._releasing]
        self._releasing.update(unknown)
        self._release([Delivery(incarnation, token, b"", b"", _NAMELESS, 0.0) for token in unknown])

    def left_s(self) -> float | None:
        """Return in how many s there may be work again that this worker has put off; None if it has put off none."""
        rest_s = self.rests.left_s()
        aside_s = self._aside_until - SYSTEM_CLOCK.monotonic()
        return rest_s if aside_s <= 0 else min(aside_s, aside_s if rest_s is None else rest_s)

    def isolate(self, *, alone: bool = True, aside_s: float = 0.1) -> bool:
        """Let the first suspect start if it is all that is held; hand back what stands in its way.

        `alone` tells whether nothing else is held in this process. Other suspects wait for `aside_s`.
        """
        if not self._suspects:
            return False
        self._release(self.buffer.drain())
        self.set_suspects_aside(aside_s, keep=1)
        if not alone or len(self.held) != 1 or self.arrived:
            return False
        self.buffer.put(self._suspects.popleft())
        return True

    def set_suspects_aside(self, wait_s: float, *, keep: int = 0) -> None:
        """Let all suspects but the first few wait for so long where they stand in nobody's way.

        They come back one after the other: who has waited longest first, and each perhaps to another process.
        """
        if len(self._suspects) > keep:
            self._aside_until = SYSTEM_CLOCK.monotonic() + wait_s
        while len(self._suspects) > keep:
            turns_s = min(_TURN_S * (len(self._suspects) - keep - 1), _TURNS_AT_MOST_S)
            self.put(self.settler.settle(self._suspects.pop(), Release(wait_s + turns_s)))

    def note_running(self, delivery: Delivery, started_ms: int, now_ms: int) -> None:
        """Put the note that an operation runs into the next turn."""
        if not delivery.operation.phase:
            self.put(self.settler.running(delivery, started_ms, now_ms))

    def _release(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in reversed(deliveries):
            self.put(self.settler.settle(delivery, Release()))
