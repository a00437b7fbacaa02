"""Signatures of items, for those who ask for them: who holds no key can put nothing into a queue that would run.

A signed item's last member is `"signature":"KEYID:HEX"`: HMAC-SHA256 over the prefix, a line feed, the queue
(`high:NAME`), a line feed, and the item without that member. It is checked and taken off where an item arrives, and
made anew where one is written. Former releases left the prefix out; what they signed is still accepted.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import Final

from queue_system.errors import UndecodableItemError
from queue_system.model.formats import join_value
from queue_system.validation import refused, type_name

_KEY_ID = re.compile(r"[A-Za-z0-9_.-]{1,32}\Z")
_SIGNATURE = re.compile(rb',"signature":"([A-Za-z0-9_.-]{1,32}):([0-9a-f]{64})"\}')
_SIGNED: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}:[0-9a-f]{64}")
_MARK: Final = b',"signature":"'
_LONGEST_SIGNATURE: Final = 113
_SHORTEST_SECRET: Final = 16
_DEAD_LETTER: Final = b"letter:"


class Signer:
    """Signs items and verifies them. Thread-safe."""

    __slots__ = ("_key_id", "_prefix", "_secrets")

    def __init__(self, secrets: Mapping[bytes, bytes], prefix: str = "") -> None:
        self._secrets = dict(secrets)
        self._key_id = next(iter(self._secrets))
        self._prefix = prefix.encode()

    def sign(self, queue: bytes, item: bytes) -> bytes:
        """Return the item of a queue with a signature by the first key."""
        digest = self._digest(self._secrets[self._key_id], queue, item)
        return b'%b,"signature":"%b:%b"}' % (item[:-1], self._key_id, digest)

    def sign_dead_letter(self, queue: bytes, dead_letter: bytes) -> bytes:
        """Return the dead letter of a verified item with a signature that no queue accepts."""
        return self.sign(_DEAD_LETTER + queue, dead_letter)

    def verify_dead_letter(self, queue: bytes, dead_letter: bytes) -> bytes:
        """Return a dead letter without the signature by `sign_dead_letter`; raises what `verify` does."""
        return self.verify(_DEAD_LETTER + queue, dead_letter)

    def verify(self, queue: bytes, item: bytes) -> bytes:
        """Return an item without its signature.

        Raises:
            UndecodableItemError: it is not signed, by an unknown key, or for other bytes, another queue or prefix.
        """
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


def is_signed(item: bytes) -> bool:
    """Return whether an item ends in a signature, by any key."""
    start = item.rfind(_MARK, -_LONGEST_SIGNATURE)
    return start >= 0 and _SIGNATURE.fullmatch(item, start) is not None


def signed_value(signer: Signer | None, queue: bytes, item: bytes) -> bytes:
    """Return an item as it is kept outside its list: its queue, a line feed and the item, signed where items are."""
    return join_value(queue, item if signer is None else signer.sign(queue, item))


def is_signature(value: object) -> bool:
    """Return whether the member `signature` of an item or a dead letter has the form of one, right or wrong."""
    return isinstance(value, str) and _SIGNED.fullmatch(value) is not None


def make_signer(signing_keys: Mapping[str, bytes | str] | None, prefix: str = "") -> Signer | None:
    """Return what signs under a prefix with the keys of a configuration; None without keys.

    Raises:
        InvalidInputError: a key is not usable. Neither ids nor secrets are shown.
    """
    return None if signing_keys is None else Signer(_check_keys(signing_keys), prefix)


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
    """Return the length of a refused secret, which is all that may be shown of it."""
    return str(len(secret)) if isinstance(secret, str | bytes) else type_name(secret)


def _hex(secret: bytes, message: bytes) -> bytes:
    return hmac.digest(secret, message, "sha256").hex().encode()
