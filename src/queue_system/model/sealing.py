"""Signatures of items, encryption of entities and results: both optional.

A signed item's last member is `"signature":"KEYID:HEX"`: HMAC-SHA256 over the prefix, a line feed, the queue
(`high:NAME`), a line feed, and the item without that member. It is checked and taken off where an item arrives, and
made anew where one is written. What is encrypted begins with the prefix, the operation's id and the field that it is
for, so that it can be put nowhere else. Former releases wrote neither; what they wrote is still taken.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

import msgspec

from queue_system.errors import UndecodableItemError, UnserializableError
from queue_system.model.entity import decode_entity
from queue_system.model.formats import join_value
from queue_system.model.operation import Operation, encode_item
from queue_system.validation import refused, type_name

_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,32}\Z")
_SIGNATURE = re.compile(rb',"signature":"([A-Za-z0-9_.-]{1,32}):([0-9a-f]{64})"\}')
_SIGNED: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}:[0-9a-f]{64}")
_MARK: Final = b',"signature":"'
_LONGEST_SIGNATURE: Final = 113
_SHORTEST_SECRET: Final = 16
_LETTER: Final = b"letter:"
_SEALED: Final = frozenset({"sealed"})
_BOUND: Final = b"\0"  # no JSON begins with it

Encode = Callable[[str, bytes, bytes], bytes]


class Encryption(Protocol):
    """What `QueueConfig(encryption=...)` takes. Called from any thread and in the worker's event loop: be quick."""

    def encrypt(self, plain: bytes, /) -> bytes:
        """Return the bytes that may be stored."""

    def decrypt(self, sealed: bytes, /) -> bytes:
        """Return what was encrypted; raise if these bytes did not come from `encrypt`."""


class Sealing:
    """Signs and verifies, encrypts and decrypts; each only if it was asked for. Thread-safe."""

    __slots__ = ("_encryption", "_key_id", "_prefix", "_secrets")

    def __init__(self, secrets: Mapping[bytes, bytes], encryption: Encryption | None, prefix: str = "") -> None:
        self._secrets = dict(secrets)
        self._key_id = next(iter(self._secrets), b"")
        self._encryption = encryption
        self._prefix = prefix.encode()

    @property
    def signs(self) -> bool:
        """Whether items are signed."""
        return bool(self._secrets)

    def encoder(self, queue: str) -> Encode:
        """Return what does for one queue what `encode_item` does, sealed. It raises UnserializableError."""
        return partial(self._encode, queue.encode())

    def _encode(self, queue: bytes, operation_id: str, entity: bytes, tail: bytes) -> bytes:
        return self.sign(queue, encode_item(operation_id, self.encrypt(entity, "entity", operation_id), tail))

    def sign(self, queue: bytes, item: bytes) -> bytes:
        """Return the item of a queue with a signature by the first key."""
        if not self._secrets:
            return item
        digest = self._digest(self._secrets[self._key_id], queue, item)
        return b'%b,"signature":"%b:%b"}' % (item[:-1], self._key_id, digest)

    def sign_dead_letter(self, queue: bytes, letter: bytes) -> bytes:
        """Return the dead letter of a verified item with a signature that no queue accepts."""
        return self.sign(_LETTER + queue, letter)

    def verify_dead_letter(self, queue: bytes, letter: bytes) -> bytes:
        """Return a dead letter without the signature by `sign_dead_letter`; raises what `verify` does."""
        return self.verify(_LETTER + queue, letter)

    def verify(self, queue: bytes, item: bytes) -> bytes:
        """Return an item without its signature.

        Raises:
            UndecodableItemError: it is not signed, by an unknown key, or for other bytes, another queue or prefix.
        """
        if not self._secrets:
            return item
        start = item.rfind(_MARK, -_LONGEST_SIGNATURE)
        found = _SIGNATURE.fullmatch(item, start) if start >= 0 else None
        if found is None:
            raise UndecodableItemError("signature: the item is not signed, although signing_keys are set")
        key_id, given = found.groups()
        secret = self._secrets.get(key_id)
        if secret is None:
            raise UndecodableItemError(f"signature: its key {key_id.decode()!r} is not among signing_keys")
        bare = item[:start] + b"}"
        if not hmac.compare_digest(self._digest(secret, queue, bare), given) and not hmac.compare_digest(
            _hex(secret, b"%b\n%b" % (queue, bare)), given
        ):
            raise UndecodableItemError("signature: it does not belong to this item in this queue")
        return bare

    def _digest(self, secret: bytes, queue: bytes, item: bytes) -> bytes:
        """Return the signature of an item; without a prefix, that of former releases."""
        where = b"%b\n%b" % (self._prefix, queue) if self._prefix else queue
        return _hex(secret, b"%b\n%b" % (where, item))

    def encrypt(self, value: bytes, field: str, operation_id: str | None = None) -> bytes:
        """Return an encoded value as `{"sealed":BASE64}`, for one field of one operation here, or for any.

        Raises UnserializableError if that fails.
        """
        if self._encryption is None:
            return value
        try:
            plain = value if operation_id is None else self._place(field, operation_id) + value
            return b'{"sealed":"%b"}' % base64.b64encode(self._encryption.encrypt(plain))
        except Exception as error:
            raise UnserializableError(field, f"it cannot be encrypted ({type(error).__name__})") from error

    def decrypt(self, value: Any, field: str, operation_id: str | None = None) -> Any:
        """Return what `{"sealed": BASE64}` holds, any other value as it stands.

        Raises UndecodableItemError if that fails, or if it was encrypted for another operation than the one that is
        named, another field or another prefix.
        """
        if self._encryption is None or not isinstance(value, dict) or value.keys() != _SEALED:
            return value
        try:
            plain = self._encryption.decrypt(base64.b64decode(value["sealed"], validate=True))
            place, document = _split_place(plain)
            decoded = decode_entity(document)
        except Exception as error:
            raise UndecodableItemError(f"{field}: it cannot be decrypted ({type(error).__name__})") from error
        if place and operation_id is not None and place != self._place(field, operation_id):
            raise UndecodableItemError(f"{field}: it was encrypted for another operation, field or prefix")
        return decoded

    def _place(self, field: str, operation_id: str) -> bytes:
        return b"%b%b\n%b\n%b\n" % (_BOUND, self._prefix, operation_id.encode(), field.encode())

    def open(self, operation: Operation) -> Operation:
        """Return an operation with entity and result as they were before; raise UndecodableItemError."""
        if self._encryption is None:
            return operation
        operation_id = operation.operation_id
        entity = self.decrypt(operation.entity, "entity", operation_id)
        result = self.decrypt(operation.result, "result", operation_id)
        return msgspec.structs.replace(operation, entity=entity, result=result)


def is_signed(item: bytes) -> bool:
    """Tell whether an item ends in a signature, by whatever key."""
    start = item.rfind(_MARK, -_LONGEST_SIGNATURE)
    return start >= 0 and _SIGNATURE.fullmatch(item, start) is not None


def signed_value(sealing: Sealing | None, queue: bytes, item: bytes) -> bytes:
    """Return what holds an item outside its list: its queue, a line feed and the item, signed where items are."""
    return join_value(queue, item if sealing is None else sealing.sign(queue, item))


def is_signature(value: object) -> bool:
    """Tell whether the member `signature` of an item or a letter is one of ours, whoever made it."""
    return isinstance(value, str) and _SIGNED.fullmatch(value) is not None


def make_sealing(
    signing_keys: Mapping[str, bytes | str] | None, encryption: Encryption | None, prefix: str = ""
) -> Sealing | None:
    """Return what seals under a prefix as a configuration says; None if it says nothing.

    Raises:
        InvalidInputError: a key or the encryption is not usable. Neither ids nor secrets are shown.
    """
    if encryption is not None and not all(callable(getattr(encryption, name, None)) for name in ("encrypt", "decrypt")):
        raise refused("encryption", "an object with the methods encrypt and decrypt", type_name(encryption))
    if signing_keys is None:
        return None if encryption is None else Sealing({}, encryption, prefix)
    return Sealing(_check_keys(signing_keys), encryption, prefix)


def _check_keys(signing_keys: object) -> dict[bytes, bytes]:
    if not isinstance(signing_keys, Mapping) or not signing_keys:
        got = "an empty mapping" if isinstance(signing_keys, Mapping) else type_name(signing_keys)
        raise refused("signing_keys", "a mapping from key ids to secrets", got, "use None to sign nothing")
    secrets: dict[bytes, bytes] = {}
    for number, (key_id, secret) in enumerate(signing_keys.items(), 1):
        if not isinstance(key_id, str) or not _KEY_ID.match(key_id):
            expected = f"the id of key {number} to be 1 to 32 of the characters A-Z a-z 0-9 _ . -"
            raise refused("signing_keys", expected, _length(key_id))
        encoded = secret.encode(errors="surrogatepass") if isinstance(secret, str) else secret
        if not isinstance(encoded, bytes) or len(encoded) < _SHORTEST_SECRET:
            expected = f"the secret of key {number} to have at least {_SHORTEST_SECRET} bytes"
            raise refused("signing_keys", expected, _length(encoded), "generate one with secrets.token_bytes(32)")
        secrets[key_id.encode()] = encoded
    return secrets


def _length(secret: object) -> str:
    """Tell of a refused secret how long it is, and no more."""
    return str(len(secret)) if isinstance(secret, str | bytes) else type_name(secret)


def _hex(secret: bytes, message: bytes) -> bytes:
    return hmac.digest(secret, message, "sha256").hex().encode()


def _split_place(plain: bytes) -> tuple[bytes, bytes]:
    """Return for what a value was encrypted, b"" if for nothing in particular, and the value."""
    if not plain.startswith(_BOUND):
        return b"", plain
    prefix, operation_id, field, document = plain.split(b"\n", 3)
    return b"%b\n%b\n%b\n" % (prefix, operation_id, field), document
