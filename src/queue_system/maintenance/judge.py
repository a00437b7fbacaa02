"""Decides what becomes of an item whose worker died: it runs again or is dead-lettered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from queue_system.broker.requests import Reclaim
from queue_system.config import QueueConfig
from queue_system.errors import UndecodableItemError, cut_text
from queue_system.model.dead_letter import encode_dead_letter
from queue_system.model.discarded import readable_id
from queue_system.model.formats import split_value
from queue_system.model.keys import split_queue
from queue_system.model.operation import PHASE_FAILURE, Operation, change_item, check_size, decode_item
from queue_system.model.oversized import raw_dead_letter, read_oversized
from queue_system.model.record import encode_error, encode_record, keeping, tell_crashes
from queue_system.model.signing import is_signed, signed_value
from queue_system.model.states import OperationState

MAX_CRASHES = 4
_QUEUED = OperationState.QUEUED.encode()
_REJECTED = OperationState.REJECTED.encode()
_POISON = "WorkerDied"
_NAMELESS = Operation(processor="")


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one item. One that is not `judged` goes back as it is, for a worker with other settings."""

    reclaim: Reclaim
    operation_id: str
    operation: Operation = _NAMELESS
    judged: bool = True
    error: str = ""
    error_type: str = ""


class Judge:
    """Counts the deaths of an item's workers; the fourth sends it to the dead letters."""

    def __init__(self, config: QueueConfig, now_ms: Callable[[], int]) -> None:
        self._config = config
        self._signer = config.signer
        self._now_ms = now_ms

    def judge(self, token: bytes, value: bytes | None) -> Fate:
        """Return the fate of what a dead incarnation held under a token; None: it is too large to be sent."""
        operation_id = f"token-{token.decode(errors='replace')}"
        if value is None:
            return Fate(Reclaim(token, b"", "back", b""), operation_id, judged=False)
        queue, _, item = split_value(value)
        if split_queue(queue) is None:
            return self._reject_raw(
                token, value, operation_id, UndecodableItemError("it did not come from a queue of ours")
            )
        oversized = read_oversized(item, int(token)) if token.isdigit() else None
        if oversized is not None:
            error = UndecodableItemError(oversized.reason(self._config.max_item_bytes))
            return self._reject_raw(token, value, operation_id, error)
        try:
            bare = self._verified(queue, item)
        except UndecodableItemError:  # a worker with another limit or other keys may well run it
            return Fate(Reclaim(token, value, "next", value), operation_id, judged=False)
        try:
            operation = decode_item(bare, self._config.max_item_bytes)
        except UndecodableItemError as error:
            return self._reject_raw(token, value, operation_id, error)
        operation_id = operation.operation_id or operation_id
        if operation.crashes + 1 >= MAX_CRASHES:
            return self._dead_letter(token, value, bare, operation_id, operation)
        return self._run_again(token, value, bare, operation_id, operation)

    def _verified(self, queue: bytes, item: bytes) -> bytes:
        """Return an item without its signature; raise UndecodableItemError if it is not this worker's to judge."""
        check_size(item, self._config.max_item_bytes)
        if self._signer is not None:
            return self._signer.verify(queue, item)
        if is_signed(item):
            raise UndecodableItemError("signature: this worker has no keys, and a change would break it")
        return item

    def _reject_raw(self, token: bytes, value: bytes, operation_id: str, error: UndecodableItemError) -> Fate:
        queue, _, item = split_value(value)
        reason = cut_text(str(error))
        error_type = type(error).__name__
        most = self._config.max_item_bytes
        number = int(token) if token.isdigit() else 0
        now = self._now_ms() / 1000
        dead_letter = raw_dead_letter(item, number, queue, reason, error_type, now, max_item_bytes=most)
        keeps, ttl_ms = keeping(self._config.result_ttl)
        body = encode_error(reason, error_type) if keeps else b""
        reclaim = Reclaim(token, value, "reject", dead_letter, record=body, record_ttl_ms=ttl_ms)
        return Fate(reclaim, readable_id(item) or operation_id, error=reason, error_type=error_type)

    def _run_again(self, token: bytes, value: bytes, item: bytes, operation_id: str, operation: Operation) -> Fate:
        queue = split_value(value)[0]
        crashes = operation.crashes + 1
        changed = change_item(item, {"operation_id": operation_id, "crashes": crashes})
        how = "next" if crashes == 1 else "later"
        new = signed_value(self._signer, queue, changed)
        if operation.phase:  # the record has the verdict, which stands
            return Fate(Reclaim(token, value, how, new), operation_id, operation)
        times_ms = (self._now_ms(), int(operation.timestamp * 1000), 0)
        record = encode_record(_QUEUED, operation, queue, operation.attempts, times_ms, body=tell_crashes(b"", crashes))
        return Fate(Reclaim(token, value, how, new, operation_id, record), operation_id, operation)

    def _dead_letter(self, token: bytes, value: bytes, item: bytes, operation_id: str, operation: Operation) -> Fate:
        queue = split_value(value)[0]
        crashes = operation.crashes + 1
        now_ms = self._now_ms()
        reason = f"its worker died {crashes} times while it was in flight"
        dead_letter = encode_dead_letter(item, queue, reason, _POISON, now_ms / 1000, crashes=crashes)
        if self._signer is not None:
            dead_letter = self._signer.sign_dead_letter(queue, dead_letter)
        if operation.phase:
            reclaim = Reclaim(token, value, "reject", dead_letter)
            return Fate(
                reclaim, operation_id, operation, error=f"{operation.phase} callback: {reason}", error_type=_POISON
            )
        own_ttl = operation.result_ttl
        keeps, ttl_ms = keeping(self._config.result_ttl if own_ttl is None else own_ttl)
        times_ms = (now_ms, int(operation.timestamp * 1000), 0)
        body = encode_error(reason, _POISON) if keeps else b""
        record = encode_record(
            _REJECTED, operation, queue, operation.attempts, times_ms, body=tell_crashes(body, crashes)
        )
        follow_up = b""
        if operation.on_failure is not None:
            changes: dict[str, object] = {"phase": PHASE_FAILURE, "error": reason, "error_type": _POISON}
            follow_up = signed_value(self._signer, queue, change_item(item, changes, drop=("crashes",)))
        reclaim = Reclaim(
            token, value, "reject", dead_letter, operation.operation_id, record, ttl_ms,
            operation.deduplication_key, follow_up,
        )  # fmt: skip
        return Fate(reclaim, operation_id, operation, error=reason, error_type=_POISON)
