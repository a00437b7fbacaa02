"""Encryption: what is stored, what comes back, what is refused and with which words, and that off means unchanged."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queue_system import InvalidInputError, QueueConfig, UndecodableItemError, UnserializableError
from queue_system.execution.settlement import Settlement, Settler, Timing
from queue_system.model.encryption import Cipher, make_cipher
from queue_system.model.operation import Operation, decode_item, encode_item, encode_tail
from queue_system.model.verdict import Complete
from tests.unit.execution.support import make_delivery, unpack

QUEUE = b"high:mail"
TIMING = Timing(1_000, 3_000, 2.0)


class Reversing:
    """Encryption for the eye: the bytes in reverse order behind a mark."""

    def encrypt(self, plain: bytes) -> bytes:
        return b"encrypted:" + plain[::-1]

    def decrypt(self, encrypted: bytes) -> bytes:
        if not encrypted.startswith(b"encrypted:"):
            raise KeyError("a detail that nobody may see")
        return encrypted.removeprefix(b"encrypted:")[::-1]


class Refusing(Reversing):
    """It has lost its key."""

    def encrypt(self, plain: bytes) -> bytes:
        raise PermissionError(plain)


CIPHER = Cipher(Reversing())


def test_without_encryption_nothing_is_encrypted() -> None:
    assert make_cipher(None) is None
    assert QueueConfig().cipher is None


@pytest.mark.parametrize("encryption", [5, object(), "aes", b"key", {"encrypt": 1}])
def test_encryption_without_its_methods_is_refused(encryption: Any) -> None:
    with pytest.raises(
        InvalidInputError,
        match=r"^encryption: expected .* encrypt and decrypt, got (int|object|str|bytes|dict)$",
    ):
        QueueConfig(encryption=encryption)


@given(
    st.none()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8"))
    | st.dictionaries(st.sampled_from("ab"), st.booleans())
)
@example({"sealed": "not what it seems"})
def test_an_entity_comes_back_as_it_was(entity: Any) -> None:
    encrypted = CIPHER.encrypt(json.dumps(entity).encode(), "entity", "7")
    item = encode_item("7", encrypted, encode_tail(Operation(processor="p")))
    assert item.startswith(b'{"operation_id":"7","entity":{"sealed":"')
    operation = decode_item(item)
    assert base64.b64decode(operation.entity["sealed"]).startswith(b"encrypted:")
    assert CIPHER.decrypt_operation(operation).entity == entity


@pytest.mark.parametrize("entity", [None, 1, "sealed", [], {}, {"sealed": "x", "more": 1}, {"to": "ada"}])
def test_what_came_in_plain_is_taken_as_it_stands(entity: Any) -> None:
    operation = Operation(processor="p", entity=entity)
    assert CIPHER.decrypt_operation(operation) == operation


@pytest.mark.parametrize(
    "encrypted, error",
    [
        ("!", "Error"), (5, "TypeError"), (None, "TypeError"), ("é", "ValueError"), ("", "KeyError"),
        (base64.b64encode(b"encrypted:{").decode(), "DecodeError"),
        (base64.b64encode(b"encrypted:" + b"[" * 100_000).decode(), "RecursionError"),
    ],
)  # fmt: skip
def test_what_cannot_be_decrypted_is_told_in_plain_words(encrypted: Any, error: str) -> None:
    for field in ("entity", "result"):
        members: dict[str, Any] = {field: {"sealed": encrypted}}
        operation = Operation(processor="p", **members)
        with pytest.raises(UndecodableItemError) as caught:
            CIPHER.decrypt_operation(operation)
        assert str(caught.value) == f"{field}: it cannot be decrypted ({error})"


@pytest.mark.parametrize("encrypted", [None, "text", 5])
def test_what_cannot_be_encrypted_is_refused_by_its_field(encrypted: Any) -> None:
    class Odd(Reversing):
        def encrypt(self, plain: bytes) -> bytes:
            return encrypted  # type: ignore[no-any-return]

    with pytest.raises(UnserializableError, match=r"^entity: it cannot be encrypted \(TypeError\)\Z"):
        Cipher(Odd()).encrypt(b"1", "entity")


@pytest.mark.parametrize("place", [("other", "7"), ("entity", "8"), ("result", "7")])
def test_what_is_encrypted_is_bound_to_its_place(place: tuple[str, str]) -> None:
    cipher = Cipher(Reversing(), "p:")
    encrypted = json.loads(cipher.encrypt(b'{"a":1}', "entity", "7"))
    assert cipher.decrypt(encrypted, "entity", "7") == {"a": 1}
    with pytest.raises(UndecodableItemError, match="another operation, field or prefix"):
        cipher.decrypt(encrypted, *place)


@pytest.mark.parametrize("plain", [b"\0", b"\0p:\n7\n", b"\0p:\n7\nentity\n", b"\0p:\n7\nentity\n{"])
def test_what_only_begins_like_a_bound_value_is_refused(plain: bytes) -> None:
    cipher = Cipher(Reversing(), "p:")
    encrypted = {"sealed": base64.b64encode(Reversing().encrypt(plain)).decode()}
    with pytest.raises(UndecodableItemError, match="cannot be decrypted"):
        cipher.decrypt(encrypted, "entity", "7")


def settle(verdict: Complete, encryption: Any, **members: Any) -> Settlement:
    settler = Settler("host:1", 300.0, 10_000, cipher=Cipher(encryption))
    return settler.settle(make_delivery(7, QUEUE, **members), verdict, TIMING)


def test_a_result_is_encrypted_in_the_record_and_for_the_callback() -> None:
    settlement = settle(Complete({"secret": "result"}), Reversing(), on_success="done")
    record = unpack(settlement.packed)[2]
    encrypted = json.loads(record.partition(b"\n")[2])["result"]
    assert CIPHER.decrypt(encrypted, "result") == {"secret": "result"}
    assert decode_item(settlement.follow_up.partition(b"\n")[2]).result == encrypted
    assert b"secret" not in settlement.packed


def test_a_result_that_cannot_be_encrypted_is_told_and_not_stored() -> None:
    record = unpack(settle(Complete("the result"), Refusing()).packed)[2]
    body = json.loads(record.partition(b"\n")[2])
    assert body == {"result": None, "result_error": "result: it cannot be encrypted (PermissionError)"}
    assert b"the result" not in record
