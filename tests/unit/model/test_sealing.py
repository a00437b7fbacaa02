"""Signatures and encryption: what is accepted, what is refused and with which words, and that off means unchanged."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from queue_system import InvalidInputError, QueueConfig, UndecodableItemError, UnserializableError
from queue_system.execution.settlement import Settlement, Settler, Timing
from queue_system.model.operation import Operation, change_item, decode_item, encode_item, encode_tail
from queue_system.model.sealing import Sealing, make_sealing, signed_value
from queue_system.model.verdict import Complete, Fail, Reject, Retry
from tests.unit.execution.support import make_delivery, unpack

QUEUE = b"high:mail"
OLD, NEW = "old secret of 16 bytes", b"new secret of 16 bytes"
ITEM = b'{"operation_id":"7","entity":{"to":"ada"},"processor":"p"}'
TIMING = Timing(1_000, 3_000, 2.0)


class Reversing:
    """Encryption for the eye: the bytes in reverse order behind a mark."""

    def encrypt(self, plain: bytes) -> bytes:
        return b"sealed:" + plain[::-1]

    def decrypt(self, sealed: bytes) -> bytes:
        if not sealed.startswith(b"sealed:"):
            raise KeyError("a detail that nobody may see")
        return sealed.removeprefix(b"sealed:")[::-1]


class Refusing(Reversing):
    """It has lost its key."""

    def encrypt(self, plain: bytes) -> bytes:
        raise PermissionError(plain)


def sealing(keys: Any = None, encryption: Any = None) -> Sealing:
    made = make_sealing(keys, encryption)
    assert made is not None
    return made


SIGNING = sealing({"k1": OLD})


def refusal(verifier: Sealing, item: bytes, queue: bytes = QUEUE) -> str:
    with pytest.raises(UndecodableItemError) as caught:
        verifier.verify(queue, item)
    return str(caught.value)


def test_without_keys_and_encryption_there_is_nothing_to_do() -> None:
    assert make_sealing(None, None) is None
    assert QueueConfig().sealing is None
    assert signed_value(None, QUEUE, ITEM) == b"high:mail\n" + ITEM


def test_a_signed_item_is_the_item_with_one_last_member() -> None:
    signed = SIGNING.sign(QUEUE, ITEM)
    key_id, _, digest = json.loads(signed)["signature"].partition(":")
    assert key_id == "k1"
    assert digest == hmac.new(OLD.encode(), QUEUE + b"\n" + ITEM, hashlib.sha256).hexdigest()
    assert signed == b'%b,"signature":"k1:%b"}' % (ITEM[:-1], digest.encode())
    assert SIGNING.verify(QUEUE, signed) == ITEM
    assert decode_item(signed) == decode_item(ITEM)


def test_the_first_key_signs_and_all_verify() -> None:
    rotated = sealing({"k2": NEW, "k1": OLD})
    assert json.loads(rotated.sign(QUEUE, ITEM))["signature"].startswith("k2:")
    assert rotated.verify(QUEUE, SIGNING.sign(QUEUE, ITEM)) == ITEM
    assert rotated.verify(QUEUE, rotated.sign(QUEUE, ITEM)) == ITEM
    assert refusal(SIGNING, rotated.sign(QUEUE, ITEM)) == "signature: its key 'k2' is not among signing_keys"


@pytest.mark.parametrize(
    "item",
    [
        b"", b"garbage", b"null", b'"}', b'"signature":"k1:"}', ITEM, SIGNING.sign(QUEUE, ITEM) + b" ",
        SIGNING.sign(QUEUE, ITEM) + b"}", b'{"entity":' + SIGNING.sign(QUEUE, ITEM) + b"}",
        change_item(SIGNING.sign(QUEUE, ITEM), {"crashes": 1}), SIGNING.sign(QUEUE, ITEM).replace(b"k1:", b"k 1:"),
    ],
)  # fmt: skip
def test_what_does_not_end_with_a_signature_is_not_signed(item: bytes) -> None:
    assert refusal(SIGNING, item) == "signature: the item is not signed, although signing_keys are set"


@given(st.data())
def test_no_byte_of_a_signed_item_can_be_changed(data: st.DataObject) -> None:
    signed = bytearray(SIGNING.sign(QUEUE, ITEM))
    place = data.draw(st.integers(0, len(signed) - 1))
    signed[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != signed[place]))
    refusal(SIGNING, bytes(signed))


@pytest.mark.parametrize("queue", [b"low:mail", b"high:mails", b"high:mail\n", b"", b"letter:high:mail"])
def test_a_signature_holds_in_its_own_queue_only(queue: bytes) -> None:
    assert (
        refusal(SIGNING, SIGNING.sign(QUEUE, ITEM), queue) == "signature: it does not belong to this item in this queue"
    )


def test_the_signature_of_a_letter_makes_no_item_of_it() -> None:
    letter = SIGNING.sign_dead_letter(QUEUE, ITEM)
    assert refusal(SIGNING, letter) == "signature: it does not belong to this item in this queue"
    assert SIGNING.verify(b"letter:" + QUEUE, letter) == ITEM


def test_a_refusal_shows_neither_secret_nor_digest() -> None:
    signed = SIGNING.sign(QUEUE, ITEM)
    digest = json.loads(signed)["signature"].removeprefix("k1:")
    for verifier, item in [(SIGNING, signed.replace(b"ada", b"eve")), (sealing({"k2": NEW}), signed)]:
        reason = refusal(verifier, item)
        assert digest not in reason
        assert OLD not in reason
    assert OLD not in repr(SIGNING)


@pytest.mark.parametrize(
    "keys",
    [
        {}, [], "k1:secret of sixteen", {"k1": "shorter than 16"}, {"k1": b"shorter than 16"}, {"k1": 5}, {"k1": None},
        {"": OLD}, {"k" * 33: OLD}, {"k:1": OLD}, {"k1\n": OLD}, {5: OLD}, {b"k1": OLD}, {OLD: "k1"},
        {"k1": OLD, "k2": ""},
    ],
)  # fmt: skip
def test_keys_that_are_not_usable_are_refused_and_not_shown(keys: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"^signing_keys: ") as caught:
        QueueConfig(signing_keys=keys)
    assert caught.value.field == "signing_keys"
    for shown in (OLD, "shorter than", "secret of sixteen"):
        assert shown not in str(caught.value)


def test_secrets_may_be_any_text_or_bytes() -> None:
    for secret in ("é" * 8, b"\x00" * 16, "\udcff" * 16):
        chosen = sealing({"A-Z_0.9": secret})
        assert chosen.verify(QUEUE, chosen.sign(QUEUE, ITEM)) == ITEM


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
    both = sealing({"k1": OLD}, Reversing())
    item = both.encoder(QUEUE.decode())("7", json.dumps(entity).encode(), encode_tail(Operation(processor="p")))
    assert item.startswith(b'{"operation_id":"7","entity":{"sealed":"')
    operation = decode_item(both.verify(QUEUE, item))
    assert base64.b64decode(operation.entity["sealed"]).startswith(b"sealed:")
    assert both.open(operation).entity == entity


def test_each_of_both_works_without_the_other() -> None:
    tail = encode_tail(Operation(processor="p"))
    signed = SIGNING.encoder("high:mail")("7", b"1", tail)
    assert SIGNING.verify(QUEUE, signed) == encode_item("7", b"1", tail)
    assert SIGNING.open(decode_item(ITEM)) == decode_item(ITEM)
    encrypting = sealing(encryption=Reversing())
    assert b"signature" not in encrypting.encoder("high:mail")("7", b"1", tail)
    assert encrypting.verify(QUEUE, ITEM) == ITEM


@pytest.mark.parametrize("entity", [None, 1, "sealed", [], {}, {"sealed": "x", "more": 1}, {"to": "ada"}])
def test_what_came_in_plain_is_taken_as_it_stands(entity: Any) -> None:
    operation = Operation(processor="p", entity=entity)
    assert sealing(encryption=Reversing()).open(operation) == operation


@pytest.mark.parametrize(
    "sealed, error",
    [
        ("!", "Error"), (5, "TypeError"), (None, "TypeError"), ("é", "ValueError"), ("", "KeyError"),
        (base64.b64encode(b"sealed:{").decode(), "DecodeError"),
        (base64.b64encode(b"sealed:" + b"[" * 100_000).decode(), "RecursionError"),
    ],
)  # fmt: skip
def test_what_cannot_be_decrypted_is_told_in_plain_words(sealed: Any, error: str) -> None:
    opener = sealing(encryption=Reversing())
    for field in ("entity", "result"):
        members: dict[str, Any] = {field: {"sealed": sealed}}
        operation = Operation(processor="p", **members)
        with pytest.raises(UndecodableItemError) as caught:
            opener.open(operation)
        assert str(caught.value) == f"{field}: it cannot be decrypted ({error})"


@pytest.mark.parametrize("encrypted", [None, "text", 5])
def test_what_cannot_be_encrypted_is_refused_by_its_field(encrypted: Any) -> None:
    class Odd(Reversing):
        def encrypt(self, plain: bytes) -> bytes:
            return encrypted  # type: ignore[no-any-return]

    with pytest.raises(UnserializableError, match=r"^entity: it cannot be encrypted \(TypeError\)\Z"):
        sealing(encryption=Odd()).encrypt(b"1", "entity")


def settle(verdict: Complete | Retry | Fail | Reject, encryption: Any = None, **members: Any) -> Settlement:
    settler = Settler("host:1", 300.0, 10_000, sealing({"k1": OLD}, encryption))
    return settler.settle(make_delivery(7, QUEUE, **members), verdict, TIMING)


def verified(value: bytes) -> dict[str, Any]:
    queue, _, item = value.partition(b"\n")
    return dict(json.loads(SIGNING.verify(queue, item)))


def test_a_retry_and_a_callback_are_signed_anew() -> None:
    value = unpack(settle(Retry(1.0, "boom", "E")).packed)[3]
    assert verified(value)["attempts"] == 1
    assert verified(settle(Complete({"a": 1}), on_success="done").follow_up)["result"] == {"a": 1}
    assert verified(settle(Fail("boom", "E"), on_failure="sorry").follow_up)["error"] == "boom"


@pytest.mark.parametrize("verdict", [Fail("boom", "E"), Reject("boom", "E")])
def test_a_letter_of_a_verified_item_is_signed_as_a_letter(verdict: Fail | Reject) -> None:
    letter = unpack(settle(verdict).packed)[-1]
    assert verified(b"letter:high:mail\n" + letter)["failure_reason"] == "boom"


def test_a_letter_of_an_item_that_was_not_verified_gains_no_signature() -> None:
    delivery = make_delivery(7, QUEUE)
    delivery.operation = Operation(processor="")
    settler = Settler("host:1", 300.0, 10_000, SIGNING)
    letter = unpack(settler.settle(delivery, Reject("not signed", "E"), TIMING).packed)[-1]
    assert b"signature" not in letter


def test_a_result_is_sealed_in_the_record_and_for_the_callback() -> None:
    settlement = settle(Complete({"secret": "result"}), Reversing(), on_success="done")
    record = unpack(settlement.packed)[2]
    sealed = json.loads(record.partition(b"\n")[2])["result"]
    opener = sealing(encryption=Reversing())
    assert opener.decrypt(sealed, "result") == {"secret": "result"}
    assert verified(settlement.follow_up)["result"] == sealed
    assert b"secret" not in settlement.packed


def test_a_result_that_cannot_be_encrypted_is_told_and_not_stored() -> None:
    record = unpack(settle(Complete("the result"), Refusing()).packed)[2]
    body = json.loads(record.partition(b"\n")[2])
    assert body == {"result": None, "result_error": "result: it cannot be encrypted (PermissionError)"}
    assert b"the result" not in record


def test_a_signature_covers_the_prefix_too() -> None:
    ours, theirs = make_sealing({"k1": OLD}, None, "ours:"), make_sealing({"k1": OLD}, None, "theirs:")
    assert ours is not None
    assert theirs is not None
    signed = ours.sign(QUEUE, ITEM)
    digest = json.loads(signed)["signature"].removeprefix("k1:")
    assert digest == hmac.new(OLD.encode(), b"ours:\nhigh:mail\n" + ITEM, hashlib.sha256).hexdigest()
    assert ours.verify(QUEUE, signed) == ITEM
    assert refusal(theirs, signed) == "signature: it does not belong to this item in this queue"
    assert refusal(theirs, ours.sign_dead_letter(QUEUE, ITEM), b"letter:" + QUEUE).startswith(
        "signature: it does not belong"
    )


@pytest.mark.parametrize("place", [("other", "7"), ("entity", "8"), ("result", "7")])
def test_what_is_encrypted_is_bound_to_its_place(place: tuple[str, str]) -> None:
    one = make_sealing(None, Reversing(), "p:")
    assert one is not None
    sealed = json.loads(one.encrypt(b'{"a":1}', "entity", "7"))
    assert one.decrypt(sealed, "entity", "7") == {"a": 1}
    with pytest.raises(UndecodableItemError, match="another operation, field or prefix"):
        one.decrypt(sealed, *place)


@pytest.mark.parametrize("plain", [b"\0", b"\0p:\n7\n", b"\0p:\n7\nentity\n", b"\0p:\n7\nentity\n{"])
def test_what_only_begins_like_a_bound_value_is_refused(plain: bytes) -> None:
    one = make_sealing(None, Reversing(), "p:")
    assert one is not None
    sealed = {"sealed": base64.b64encode(Reversing().encrypt(plain)).decode()}
    with pytest.raises(UndecodableItemError, match="cannot be decrypted"):
        one.decrypt(sealed, "entity", "7")
