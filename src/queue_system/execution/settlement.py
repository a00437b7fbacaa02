"""Turns verdicts into settlements."""

from __future__ import annotations

from hashlib import sha1
from typing import Final

import msgspec

from queue_system.broker.protocol import pack
from queue_system.errors import ServerError, UnserializableError, cut_text
from queue_system.execution.delivery import Delivery
from queue_system.model.dead_letter import encode_dead_letter
from queue_system.model.discarded import failure_callback, readable_id
from queue_system.model.encryption import Cipher
from queue_system.model.entity import encode_entity
from queue_system.model.operation import PHASE_FAILURE, PHASE_SUCCESS, Operation, change_item
from queue_system.model.oversized import Oversized, oversized_dead_letter, raw_dead_letter
from queue_system.model.record import encode_error, encode_record, keeping, tell_crashes
from queue_system.model.signing import Signer, signed_value
from queue_system.model.states import OperationState, Verb
from queue_system.model.verdict import Complete, Fail, Reject, Release, Retry, Verdict
from queue_system.tracebacks import MOST_BYTES, Trace, tail

_RUNNING, _DELAYED, _SUCCEEDED, _FAILED, _REJECTED = (
    state.encode()
    for state in (
        OperationState.RUNNING, OperationState.DELAYED, OperationState.SUCCEEDED, OperationState.FAILED,
        OperationState.REJECTED,
    )
)  # fmt: skip
PLAIN: Final = "plain"
"""The form of a success without a callback and a deduplication key, which is most of them."""
_COMPLETE: Final = Verb.COMPLETE  # a local name is quicker
_RETRIED_TRACEBACK: Final = 2048  # bytes; an outage may leave very many operations waiting for their retry
_encode = msgspec.json.Encoder().encode


class Timing(msgspec.Struct, frozen=True, gc=False):
    """When an execution began and ended, in ms of the server's time, and how long it took, in s."""

    started_ms: int
    ended_ms: int
    duration_s: float = 0.0


_NO_TIMING = Timing(0, 0)


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """One delivery's verdict, ready to be sent."""

    delivery: Delivery
    verb: Verb
    packed: bytes
    ttl_ms: int = 0
    follow_up: bytes = b""
    timing: Timing = _NO_TIMING
    form: str = ""
    """How the script names the verdict, where it has another form of it."""
    problem: str = ""
    """Why the result is lost."""
    declined: Reject | None = None
    """The rejection that the server turns into a wait while the system errors are full."""


class Settler:
    """Writes what each verdict means as a settlement, for one worker."""

    def __init__(
        self,
        worker_name: str,
        result_ttl: float,
        max_item_bytes: int,
        *,
        signer: Signer | None = None,
        cipher: Cipher | None = None,
    ) -> None:
        self.worker_name = worker_name
        self._worker = worker_name.encode()
        self._keeps_results, self._ttl_ms = keeping(result_ttl)
        self.max_item_bytes = max_item_bytes
        self._signer = signer
        self._cipher = cipher

    def settle(self, delivery: Delivery, verdict: Verdict, timing: Timing = _NO_TIMING) -> Settlement:
        """Return the settlement of a verdict."""
        if isinstance(verdict, Complete):
            return self._complete(delivery, verdict, timing)
        match verdict:
            case Retry(delay, error, error_type, trace):
                why = encode_error(cut_text(error), cut_text(error_type), _traceback(trace, _RETRIED_TRACEBACK))
                return self._retry(delivery, delay, why, timing)
            case Fail():
                return self._dead_letter(Verb.FAIL, delivery, verdict, timing)
            case Reject():
                settlement = self._dead_letter(Verb.REJECT, delivery, verdict, timing)
                return settlement if not verdict.wait else _declined(settlement, verdict)
            case Release(0.0):
                return Settlement(delivery, Verb.RELEASE, pack((delivery.token,)))
            case Release(wait):
                return Settlement(delivery, Verb.RELEASE, pack((delivery.token, int(wait * 1000))), form="aside")

    def discard(self, delivery: Delivery, error: str, error_type: str, timing: Timing) -> Settlement:
        """Return the rejection of what cannot be read or trusted; its record is found by the id it begins with."""
        error = cut_text(error)
        dead_letter = raw_dead_letter(
            delivery.item, delivery.token, delivery.queue, error, error_type, timing.ended_ms / 1000,
            max_item_bytes=self.max_item_bytes,
        )  # fmt: skip
        body = encode_error(error, error_type) if self._keeps_results else b""
        follow_up = b""
        if item := failure_callback(
            delivery.queue, delivery.item, error, error_type, self.max_item_bytes, self._signer
        ):
            follow_up = signed_value(self._signer, delivery.queue, item)
        packed = pack((delivery.token, "", body, self._worker, follow_up, dead_letter))
        return Settlement(delivery, Verb.REJECT, packed, self._ttl_ms, follow_up, timing, form="discard")

    def shelve(self, refused: Settlement, prefix: str, now_ms: int, kept_ms: int) -> Settlement:
        """Return what settles a delivery whose verdict the server refuses: its item stays there, under its own key."""
        delivery = refused.delivery
        item = refused.delivery.item
        operation = refused.delivery.operation
        id_ = operation.operation_id or readable_id(item)
        kept_in = f"{prefix}oversized:{delivery.token}"
        digest = sha1(item, usedforsecurity=False).hexdigest()
        shelved = Oversized(id_, kept_in, len(item), digest, item[:1024])
        reason = f"the server refuses the verdict ({refused.verb}); the item is kept in the key {kept_in}"
        error_type = ServerError.__name__
        dead_letter = oversized_dead_letter(shelved, delivery.queue, reason, error_type, now_ms / 1000)
        keeps, ttl_ms = self._kept(operation)
        body = encode_error(reason, error_type) if keeps else b""
        record = self._record(_REJECTED, delivery, Timing(refused.timing.started_ms, now_ms), body)
        id_ = "" if operation.phase else id_
        packed = pack((delivery.token, id_, record, operation.deduplication_key, "", dead_letter, kept_ms))
        return Settlement(delivery, Verb.REJECT, packed, ttl_ms, timing=refused.timing, form="shelve")

    def running(self, delivery: Delivery, started_ms: int, now_ms: int) -> Settlement:
        """Return the note that an operation runs; it settles nothing."""
        record = self._record(_RUNNING, delivery, Timing(started_ms, now_ms))
        return Settlement(delivery, Verb.RUNNING, pack((delivery.token, delivery.operation_id, record)))

    def _complete(self, delivery: Delivery, verdict: Complete, timing: Timing) -> Settlement:
        operation = delivery.operation
        result = verdict.result
        problem = verdict.result_error
        if operation.phase:
            packed = pack((delivery.token, "", "", "", ""))
            return Settlement(delivery, _COMPLETE, packed, self._ttl_ms)
        try:
            encoded = b"null" if result is None else encode_entity(result, field="result")
            if self._cipher is not None and result is not None:
                encoded = self._cipher.encrypt(encoded, "result", delivery.operation_id)
            if len(encoded) > self.max_item_bytes:
                problem = f"result: it has {len(encoded)} bytes, more than {self.max_item_bytes}"
                encoded = b"null"
        except UnserializableError as error:
            encoded = b"null"
            problem = str(error)
        body = b'{"result":%b}' % encoded
        follow_up = b""
        if problem:
            problem = cut_text(problem)
            body = _encode({"result": None, "result_error": problem})
        if operation.on_success is not None:
            changes: dict[str, object] = {"phase": PHASE_SUCCESS, "result": msgspec.Raw(encoded)}
            if problem:
                changes["result_error"] = problem
            follow_up = self._follow_up(delivery, changes)
        keeps, ttl_ms = self._kept(operation)
        record = self._record(_SUCCEEDED, delivery, timing, body if keeps else b"")
        if not follow_up and not operation.deduplication_key:
            return Settlement(delivery, _COMPLETE, _pack_plain(delivery, record), ttl_ms, b"", timing, PLAIN, problem)
        packed = pack((delivery.token, delivery.operation_id, record, operation.deduplication_key, follow_up))
        return Settlement(delivery, _COMPLETE, packed, ttl_ms, follow_up, timing, problem=problem)

    def _retry(self, delivery: Delivery, delay: float, error: bytes, timing: Timing) -> Settlement:
        operation = delivery.operation
        delay_ms = int(delay * 1000)
        item = change_item(
            delivery.item,
            {
                "operation_id": delivery.operation_id,
                "attempts": operation.attempts + 1,
                "first_attempt_time": operation.first_attempt_time or timing.started_ms / 1000,
                "due": (timing.ended_ms + delay_ms) / 1000,
            },
            drop=("crashes",),
        )
        due = Timing(timing.started_ms, timing.ended_ms + delay_ms)
        record = self._record(_DELAYED, delivery, due, error)
        value = signed_value(self._signer, delivery.queue, item)
        packed = pack((delivery.token, delivery.operation_id, record, value, delay_ms))
        return Settlement(delivery, Verb.RETRY, packed, timing=timing)

    def _dead_letter(self, verb: Verb, delivery: Delivery, verdict: Fail | Reject, timing: Timing) -> Settlement:
        operation = delivery.operation
        error = cut_text(verdict.error)
        error_type = cut_text(verdict.error_type)
        traceback = _traceback(verdict.trace, MOST_BYTES)
        changes: dict[str, object] = {"traceback": traceback} if traceback else {}
        if operation.processor:
            attempts = operation.attempts + _executions(verdict)
            changes |= {"operation_id": delivery.operation_id, "attempts": attempts}
        dead_letter = encode_dead_letter(
            delivery.item, delivery.queue, error, error_type, timing.ended_ms / 1000,
            max_item_bytes=self.max_item_bytes, **changes,
        )  # fmt: skip
        if self._signer is not None and operation.processor:
            dead_letter = self._signer.sign_dead_letter(delivery.queue, dead_letter)
        if operation.phase:
            packed = pack((delivery.token, "", "", "", "", dead_letter))
            return Settlement(delivery, verb, packed, self._ttl_ms, timing=timing)
        follow_up = b""
        if operation.on_failure is not None:
            changes = {"phase": PHASE_FAILURE, "error": error, "error_type": error_type}
            if traceback:
                changes["error_traceback"] = traceback  # a dead letter of the callback has a `traceback` of its own
            follow_up = self._follow_up(delivery, changes)
        status = _FAILED if verb is Verb.FAIL else _REJECTED
        keeps, ttl_ms = self._kept(operation)
        body = encode_error(error, error_type, traceback) if keeps else b""
        record = self._record(status, delivery, timing, body, _executions(verdict))
        operation_id = delivery.operation_id if operation.processor else ""
        packed = pack((delivery.token, operation_id, record, operation.deduplication_key, follow_up, dead_letter))
        return Settlement(delivery, verb, packed, ttl_ms, follow_up, timing)

    def _kept(self, operation: Operation) -> tuple[bool, int]:
        """Whether the operation's record keeps its result, and its lifetime in ms."""
        if operation.result_ttl is not None:
            return keeping(operation.result_ttl)
        return self._keeps_results, self._ttl_ms

    def _follow_up(self, delivery: Delivery, changes: dict[str, object]) -> bytes:
        changes = {"operation_id": delivery.operation_id, **changes}
        item = change_item(delivery.item, changes, drop=("crashes",))
        return signed_value(self._signer, delivery.queue, item)

    def _record(
        self, status: bytes, delivery: Delivery, timing: Timing, body: bytes = b"", executions: int = 1
    ) -> bytes:
        operation = delivery.operation
        attempts = operation.attempts + executions
        if operation.crashes and status != _DELAYED:  # a retry forgets them
            body = tell_crashes(body, operation.crashes)
        times_ms = (timing.ended_ms, int(operation.timestamp * 1000), timing.started_ms)
        return encode_record(status, operation, delivery.queue, attempts, times_ms, self._worker, body)


def _pack_plain(delivery: Delivery, record: bytes) -> bytes:
    """Pack what `pack` would, without its loops: most settlements are of this kind."""
    token = b"%d" % delivery.token
    operation_id = delivery.operation_id.encode()
    return b"$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
        len(token), token, len(operation_id), operation_id, len(record), record,
    )  # fmt: skip


def _executions(verdict: Fail | Reject) -> int:
    """Return how many executions the verdict is about."""
    return int(isinstance(verdict, Fail) and verdict.began)


def _declined(settlement: Settlement, reject: Reject) -> Settlement:
    """Let a rejected item wait instead, if the dead letters are full."""
    packed = settlement.packed + pack((int(reject.wait * 1000),))
    declined = msgspec.structs.replace(reject, wait=0.0)
    return msgspec.structs.replace(settlement, packed=packed, form="decline", declined=declined)


def _traceback(trace: Trace | None, most: int) -> str:
    return "" if trace is None else tail(trace.text, most)
