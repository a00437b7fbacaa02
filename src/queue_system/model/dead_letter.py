"""Dead letters: how one is written and read, and the item that it becomes again. Never talks to Redis."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import sys
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from queue_system.errors import UndecodableItemError
from queue_system.model.encryption import Cipher
from queue_system.model.keys import split_queue
from queue_system.model.operation import change_item, decode_item
from queue_system.model.signing import Signer, is_signature

_WHY: Final = ("failure_reason", "error_type", "failed_at", "queue", "raw_base64", "traceback")
_SPENT: Final = ("attempts", "crashes", "first_attempt_time", "signature")
_ID_DIGITS: Final = 32
_encode = msgspec.json.Encoder().encode
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One dead letter. What is not known is "", 0 or None; any program may have written all of it."""

    letter_id: str
    """A digest of its bytes, so equal dead letters share it."""
    source: str
    """`"failures"` or `"system_errors"`."""
    operation_id: str
    queue: str
    priority: str
    processor: str
    """`module.name`, or the name alone."""
    reason: str
    error_type: str
    traceback: str
    """Where the error came from; "" if that is not known."""
    failed_at: float | None
    """Unix seconds of the server's clock."""
    attempts: int
    item: dict[str, Any] | None
    """The members of the item, an encrypted entity as it stands; None when it is not a JSON object."""
    raw: bytes
    """The dead letter as it lies in Redis."""
    retryable: bool
    """Whether it holds an item that a worker with this configuration would take."""


class Note(msgspec.Struct):
    """The members of a dead letter by which it is chosen, of whatever type they are."""

    queue: Any = ""
    processor: Any = ""
    processor_module: Any = None
    failure_reason: Any = ""
    error_type: Any = ""
    traceback: Any = ""
    failed_at: Any = None
    raw_base64: Any = None
    signature: Any = None
    kept_in: Any = None

    @property
    def kept_key(self) -> str:
        """The key that holds the item, one too large to be sent; "" for a dead letter that holds its item itself."""
        return self.kept_in if isinstance(self.kept_in, str) and not self.processor else ""

    @property
    def where(self) -> tuple[str, str]:
        """Priority and name of the queue it came from; two empty texts when it came from no queue of this system."""
        return split_queue(_text(self.queue).encode(errors="replace")) or ("", "")

    @property
    def full_processor(self) -> str:
        """The processor, with its module if that is known."""
        name = _text(self.processor)
        module = _text(self.processor_module)
        return f"{module}.{name}" if module else name

    @property
    def full_error(self) -> str:
        """Type and text of the error."""
        return f"{_text(self.error_type)}: {_text(self.failure_reason)}"

    @property
    def when(self) -> float | None:
        """When it failed, in Unix seconds; None if that is not known."""
        at = self.failed_at
        if not isinstance(at, int | float) or isinstance(at, bool):
            return None
        try:
            return float(at)
        except OverflowError:  # JSON's integers have no limit
            return None


LARGE_END: Final = 4096
"""How many bytes the script `aged` returns of a large dead letter: its end."""
_FAILED_AT: Final = re.compile(rb'.*"failed_at":([0-9]{1,12}(?:\.[0-9]{1,9})?),', re.DOTALL)
_decode_note = msgspec.json.Decoder(Note).decode


class Requeue(msgspec.Struct, frozen=True):
    """What a dead letter becomes again: its queue (`high:NAME`) and the item, signed where items are.

    `operation_id` is "" where no record belongs to the item: it is a callback's, or has no id. `untold` is "n" and the
    item's old nonce if its record does not say that it became a dead letter, as of one that could not be verified.
    """

    dead_letter: bytes
    queue: str
    item: bytes
    operation_id: str
    deduplication_key: str
    untold: str


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What decides whether the workers of a configuration accept an item."""

    max_item_bytes: int
    signer: Signer | None = None
    cipher: Cipher | None = None


def encode_dead_letter(
    item: bytes,
    queue: bytes,
    reason: str,
    error_type: str,
    failed_at: float,
    *,
    max_item_bytes: int = sys.maxsize,
    **changes: object,
) -> bytes:
    """Encode a dead letter: the item's members and why it is here; `raw_base64` where they do not give its bytes.

    What is too large for `max_item_bytes` is kept as it came, not decoded.
    """
    why: dict[str, Any] = {
        "failure_reason": reason,
        "error_type": error_type,
        "failed_at": round(failed_at, 3),
        "queue": queue.decode(errors="replace"),
    }
    try:
        decode_item(item, max_item_bytes)
        if change_item(item, {}) != item:
            why["raw_base64"] = base64.b64encode(item).decode()
        return change_item(item, {**changes, **why}, drop=() if "crashes" in changes else ("crashes",))
    except UndecodableItemError:
        return _encode({"raw_base64": base64.b64encode(item).decode(), **why})


def letter_id(dead_letter: bytes) -> str:
    """Return the id of a dead letter."""
    return hashlib.sha256(dead_letter).hexdigest()[:_ID_DIGITS]


def read_note(dead_letter: bytes) -> Note:
    """Read the members of a dead letter; bytes that are not a JSON object have none."""
    try:
        return _decode_note(dead_letter)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return Note()


def read_time(dead_letter: bytes) -> float | None:
    """Return when a dead letter failed, in Unix seconds, if it says so; the end of a large one is enough."""
    if (when := read_note(dead_letter).when) is not None:
        return when
    found = _FAILED_AT.match(dead_letter) if len(dead_letter) == LARGE_END else None
    return float(found[1]) if found else None


def read_dead_letter(dead_letter: bytes, source: str, acceptance: Acceptance) -> DeadLetter:
    """Return a dead letter as an operator sees it, whatever its bytes are."""
    note = read_note(dead_letter)
    members = _members(dead_letter)
    priority, queue = note.where
    item = {name: value for name, value in members.items() if name not in _WHY and name != "signature"}
    if not item and note.raw_base64 is not None:
        with contextlib.suppress(UndecodableItemError):
            item = _members(_raw_item(note))
    attempts = members.get("attempts")
    return DeadLetter(
        letter_id=letter_id(dead_letter),
        source=source,
        operation_id=_text(members.get("operation_id")),
        queue=queue,
        priority=priority,
        processor=note.full_processor,
        reason=_text(note.failure_reason),
        error_type=_text(note.error_type),
        traceback=_text(note.traceback),
        failed_at=note.when,
        attempts=attempts if isinstance(attempts, int) else 0,
        item=item or None,
        raw=dead_letter,
        retryable=requeue(dead_letter, "", acceptance) is not None,
    )


def requeue(dead_letter: bytes, nonce: str, acceptance: Acceptance, *, due: float = 0.0) -> Requeue | None:
    """Return what a dead letter becomes again, under a new nonce; None if no worker with these settings would take it.

    It waits from `due` on, in Unix seconds; 0 leaves that untold.

    Attempts, crashes and the time of the first attempt are forgotten, unknown members kept. With signatures, either the
    dead letter or the item in it must be signed by one of the keys.
    """
    note = read_note(dead_letter)
    priority, name = note.where
    queue = f"{priority}:{name}"
    signer = acceptance.signer
    if needs_keys(note, signer):
        return None
    try:
        told, item = _find_item(dead_letter, note, queue.encode(), signer)
        old = decode_item(item, acceptance.max_item_bytes)
        has_record = bool(old.operation_id) and not old.phase
        changes: dict[str, object] = {"nonce": nonce} if has_record else {}
        if due:
            changes["due"] = due
        item = change_item(item, changes, drop=_SPENT)
        if acceptance.cipher is not None:
            acceptance.cipher.decrypt_operation(old)
        if signer is not None:
            item = signer.sign(queue.encode(), item)
    except (UndecodableItemError, ValueError, RecursionError, msgspec.MsgspecError):
        return None
    if not has_record:
        return Requeue(dead_letter, queue, item, "", "", "")
    return Requeue(dead_letter, queue, item, old.operation_id, old.deduplication_key, "" if told else f"n{old.nonce}")


def needs_keys(note: Note, signer: Signer | None) -> bool:
    """Return whether a dead letter or the item in it is signed while nothing here could sign it again."""
    if signer is not None:
        return False
    if is_signature(note.signature):
        return True
    if note.raw_base64 is None:
        return False
    with contextlib.suppress(UndecodableItemError):
        return is_signature(read_note(_raw_item(note)).signature)
    return False


def _find_item(dead_letter: bytes, note: Note, queue: bytes, signer: Signer | None) -> tuple[bool, bytes]:
    """Return whether the operation's record knows of the dead letter, and the item in it.

    Raises:
        UndecodableItemError: there is no item, it came from no queue, or none of the keys has signed it.
    """
    if split_queue(queue) is None:
        raise UndecodableItemError("queue: it did not come from a queue of ours")
    if signer is not None:
        with contextlib.suppress(UndecodableItemError):
            return True, change_item(signer.verify_dead_letter(queue, dead_letter), {}, drop=_WHY)
        item = change_item(dead_letter, {}, drop=_WHY) if note.raw_base64 is None else _raw_item(note)
        return False, signer.verify(queue, item)
    if note.raw_base64 is not None and not note.processor:
        return False, _raw_item(note)
    return True, change_item(dead_letter, {}, drop=_WHY)


def _raw_item(note: Note) -> bytes:
    try:
        return base64.b64decode(note.raw_base64, validate=True)
    except (ValueError, TypeError) as error:
        raise UndecodableItemError(f"raw_base64: {error}") from error


def _members(dead_letter: bytes) -> dict[str, Any]:
    try:
        return _decode_object(dead_letter)
    except (ValueError, RecursionError, msgspec.MsgspecError):
        return {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
