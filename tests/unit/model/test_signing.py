"""Signatures: what is accepted, what is refused and with which words, and that off means unchanged."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_system import InvalidInputError, QueueConfig, UndecodableItemError
from queue_system.execution.settlement import Settlement, Settler, Timing
from queue_system.model.operation import Operation, change_item, decode_item
from queue_system.model.signing import Signer, make_signer, signed_value
from queue_system.model.verdict import Complete, Fail, Reject, Retry
from tests.unit.execution.support import make_delivery, unpack

QUEUE = b"high:mail"
OLD = "old secret of 16 bytes"
NEW = b"new secret of 16 bytes"
ITEM = b'{"operation_id":"7","entity":{"to":"ada"},"processor":"p"}'
TIMING = Timing(1_000, 3_000, 2.0)


def signer_of(keys: Any, prefix: str = "") -> Signer:
    signer = make_signer(keys, prefix)
    assert signer is not None
    return signer


SIGNER = signer_of({"k1": OLD})


def test_without_keys_nothing_is_signed() -> None:
    assert make_signer(None) is None
    assert QueueConfig().signer is None
    assert signed_value(None, QUEUE, ITEM) == b"high:mail\n" + ITEM


def refusal(verifier: Signer, item: bytes, queue: bytes = QUEUE) -> str:
    with pytest.raises(UndecodableItemError) as caught:
        verifier.verify(queue, item)
    return str(caught.value)


def test_a_signed_item_is_the_item_with_one_last_member() -> None:
    signed = SIGNER.sign(QUEUE, ITEM)
    key_id, _, digest = json.loads(signed)["signature"].partition(":")
    assert key_id == "k1"
    assert digest == hmac.new(OLD.encode(), QUEUE + b"\n" + ITEM, hashlib.sha256).hexdigest()
    assert signed == b'%b,"signature":"k1:%b"}' % (ITEM[:-1], digest.encode())
    assert SIGNER.verify(QUEUE, signed) == ITEM
    assert decode_item(signed) == decode_item(ITEM)


def test_the_first_key_signs_and_all_verify() -> None:
    rotated = signer_of({"k2": NEW, "k1": OLD})
    assert json.loads(rotated.sign(QUEUE, ITEM))["signature"].startswith("k2:")
    assert rotated.verify(QUEUE, SIGNER.sign(QUEUE, ITEM)) == ITEM
    assert rotated.verify(QUEUE, rotated.sign(QUEUE, ITEM)) == ITEM
    assert refusal(SIGNER, rotated.sign(QUEUE, ITEM)) == "signature: its key 'k2' is not among signing_keys"


@pytest.mark.parametrize(
    "item",
    [
        b"", b"garbage", b"null", b'"}', b'"signature":"k1:"}', ITEM, SIGNER.sign(QUEUE, ITEM) + b" ",
        SIGNER.sign(QUEUE, ITEM) + b"}", b'{"entity":' + SIGNER.sign(QUEUE, ITEM) + b"}",
        change_item(SIGNER.sign(QUEUE, ITEM), {"crashes": 1}), SIGNER.sign(QUEUE, ITEM).replace(b"k1:", b"k 1:"),
    ],
)  # fmt: skip
def test_what_does_not_end_with_a_signature_is_not_signed(item: bytes) -> None:
    assert refusal(SIGNER, item) == "signature: the item is not signed, although signing_keys are set"


@given(st.data())
def test_no_byte_of_a_signed_item_can_be_changed(data: st.DataObject) -> None:
    signed = bytearray(SIGNER.sign(QUEUE, ITEM))
    place = data.draw(st.integers(0, len(signed) - 1))
    signed[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != signed[place]))
    refusal(SIGNER, bytes(signed))


@pytest.mark.parametrize("queue", [b"low:mail", b"high:mails", b"high:mail\n", b"", b"letter:high:mail"])
def test_a_signature_holds_in_its_own_queue_only(queue: bytes) -> None:
    assert (
        refusal(SIGNER, SIGNER.sign(QUEUE, ITEM), queue) == "signature: it does not belong to this item in this queue"
    )


def test_the_signature_of_a_dead_letter_makes_no_item_of_it() -> None:
    dead_letter = SIGNER.sign_dead_letter(QUEUE, ITEM)
    assert refusal(SIGNER, dead_letter) == "signature: it does not belong to this item in this queue"
    assert SIGNER.verify(b"letter:" + QUEUE, dead_letter) == ITEM


def test_a_refusal_shows_neither_secret_nor_digest() -> None:
    signed = SIGNER.sign(QUEUE, ITEM)
    digest = json.loads(signed)["signature"].removeprefix("k1:")
    for verifier, item in [(SIGNER, signed.replace(b"ada", b"eve")), (signer_of({"k2": NEW}), signed)]:
        reason = refusal(verifier, item)
        assert digest not in reason
        assert OLD not in reason
    assert OLD not in repr(SIGNER)


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
        chosen = signer_of({"A-Z_0.9": secret})
        assert chosen.verify(QUEUE, chosen.sign(QUEUE, ITEM)) == ITEM


def test_a_signature_covers_the_prefix_too() -> None:
    ours = signer_of({"k1": OLD}, "ours:")
    theirs = signer_of({"k1": OLD}, "theirs:")
    signed = ours.sign(QUEUE, ITEM)
    digest = json.loads(signed)["signature"].removeprefix("k1:")
    assert digest == hmac.new(OLD.encode(), b"ours:\nhigh:mail\n" + ITEM, hashlib.sha256).hexdigest()
    assert ours.verify(QUEUE, signed) == ITEM
    assert refusal(theirs, signed) == "signature: it does not belong to this item in this queue"
    assert refusal(theirs, ours.sign_dead_letter(QUEUE, ITEM), b"letter:" + QUEUE).startswith(
        "signature: it does not belong"
    )


def settle(verdict: Complete | Retry | Fail | Reject, **members: Any) -> Settlement:
    settler = Settler("host:1", 300.0, 10_000, signer=SIGNER)
    return settler.settle(make_delivery(7, QUEUE, **members), verdict, TIMING)


def verified(value: bytes) -> dict[str, Any]:
    queue, _, item = value.partition(b"\n")
    return dict(json.loads(SIGNER.verify(queue, item)))


def test_a_retry_and_a_callback_are_signed_anew() -> None:
    value = unpack(settle(Retry(1.0, "boom", "E")).packed)[3]
    assert verified(value)["attempts"] == 1
    assert verified(settle(Complete({"a": 1}), on_success="done").follow_up)["result"] == {"a": 1}
    assert verified(settle(Fail("boom", "E"), on_failure="sorry").follow_up)["error"] == "boom"


@pytest.mark.parametrize("verdict", [Fail("boom", "E"), Reject("boom", "E")])
def test_a_dead_letter_of_a_verified_item_is_signed_as_a_dead_letter(verdict: Fail | Reject) -> None:
    dead_letter = unpack(settle(verdict).packed)[-1]
    assert verified(b"letter:high:mail\n" + dead_letter)["failure_reason"] == "boom"


def test_a_dead_letter_of_an_item_that_was_not_verified_gains_no_signature() -> None:
    delivery = make_delivery(7, QUEUE)
    delivery.operation = Operation(processor="")
    settler = Settler("host:1", 300.0, 10_000, signer=SIGNER)
    dead_letter = unpack(settler.settle(delivery, Reject("not signed", "E"), TIMING).packed)[-1]
    assert b"signature" not in dead_letter
