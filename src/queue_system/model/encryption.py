"""Encryption of entities and results, for those who ask for it.

An encrypted value is stored as `{"sealed": BASE64}`. What is encrypted begins with the prefix, the operation's id and
the field that it is for, so that it can be put nowhere else. Former releases left these out; what they wrote is still
read.
"""

from __future__ import annotations

import base64
from typing import Any, Final, Protocol

import msgspec

from queue_system.errors import UndecodableItemError, UnserializableError
from queue_system.model.entity import decode_entity
from queue_system.model.operation import Operation
from queue_system.validation import refused, type_name

_MEMBER: Final = frozenset({"sealed"})
_BOUND: Final = b"\0"  # no JSON begins with it


class Encryption(Protocol):
    """What `QueueConfig(encryption=...)` takes. Called from any thread and in the worker's event loop: be quick."""

    def encrypt(self, plain: bytes, /) -> bytes:
        """Return the bytes that may be stored."""

    def decrypt(self, encrypted: bytes, /) -> bytes:
        """Return what was encrypted; raise if these bytes did not come from `encrypt`."""


class Cipher:
    """Encrypts and decrypts the values of operations. As thread-safe as the encryption that it was given."""

    __slots__ = ("_encryption", "_prefix")

    def __init__(self, encryption: Encryption, prefix: str = "") -> None:
        self._encryption = encryption
        self._prefix = prefix.encode()

    def encrypt(self, value: bytes, field: str, operation_id: str | None = None) -> bytes:
        """Encrypt an encoded value for one field of one operation, or for any, as `{"sealed":BASE64}`.

        Raises UnserializableError if that fails.
        """
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
        if not isinstance(value, dict) or value.keys() != _MEMBER:
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

    def decrypt_operation(self, operation: Operation) -> Operation:
        """Return an operation with its entity and result decrypted; raises what `decrypt` does."""
        operation_id = operation.operation_id
        entity = self.decrypt(operation.entity, "entity", operation_id)
        result = self.decrypt(operation.result, "result", operation_id)
        return msgspec.structs.replace(operation, entity=entity, result=result)


def make_cipher(encryption: Encryption | None, prefix: str = "") -> Cipher | None:
    """Return what encrypts under a prefix with the encryption of a configuration; None without one.

    Raises:
        InvalidInputError: the encryption lacks a method.
    """
    if encryption is None:
        return None
    if not all(callable(getattr(encryption, name, None)) for name in ("encrypt", "decrypt")):
        raise refused("encryption", "an object with the methods encrypt and decrypt", type_name(encryption))
    return Cipher(encryption, prefix)


def _split_place(plain: bytes) -> tuple[bytes, bytes]:
    """Split what was encrypted into what it was encrypted for, b"" if nothing in particular, and the value."""
    if not plain.startswith(_BOUND):
        return b"", plain
    prefix, operation_id, field, document = plain.split(b"\n", 3)
    return b"%b\n%b\n%b\n" % (prefix, operation_id, field), document
