"""A dead letter is read whatever its bytes are, and becomes an item again only where a worker would take it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_system.model.dead_letter import (
    Acceptance,
    encode_dead_letter,
    letter_id,
    read_dead_letter,
    read_note,
    requeue,
)
from queue_system.model.encryption import Cipher
from queue_system.model.operation import decode_item
from queue_system.model.signing import Signer, make_signer

MOST = 1 << 20
ANY = Acceptance(MOST)
ITEM = b'{"operation_id":"op","entity":{"n":1},"processor":"send","processor_module":"mails","x":[1.0]}'
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
MEMBERS = ["operation_id", "entity", "processor", "processor_module", "attempts", "failure_reason", "error_type",
           "failed_at", "queue", "raw_base64", "crashes", "phase", "nonce", "signature"]  # fmt: skip


def signer_of(keys: dict[str, str]) -> Signer:
    signer = make_signer(dict(keys))
    assert signer is not None
    return signer


def dead_letter_of(item: bytes = ITEM, **changes: Any) -> bytes:
    return encode_dead_letter(item, b"high:mails", "boom", "ValueError", 12.5, **changes)


def test_a_dead_letter_tells_what_it_is() -> None:
    dead_letter = dead_letter_of(attempts=3)
    read = read_dead_letter(dead_letter, "failures", ANY)
    assert (read.operation_id, read.priority, read.queue, read.processor) == ("op", "high", "mails", "mails.send")
    assert (read.reason, read.error_type, read.failed_at, read.attempts) == ("boom", "ValueError", 12.5, 3)
    assert read.item == {**json.loads(ITEM), "attempts": 3}
    assert (read.raw, read.letter_id, read.source) == (dead_letter, letter_id(dead_letter), "failures")
    assert read.retryable
    assert len(read.letter_id) == 32


def test_what_it_becomes_again_is_the_item_with_its_attempts_reset() -> None:
    item = ITEM[:-1] + b',"crashes":2,"first_attempt_time":1.0,"nonce":"old","deduplication_key":"k"}'
    found = requeue(dead_letter_of(item, attempts=3, crashes=3), "new", ANY)
    assert found is not None
    assert found.item == ITEM[:-1] + b',"nonce":"new","deduplication_key":"k"}'
    assert (found.queue, found.operation_id, found.deduplication_key, found.untold) == ("high:mails", "op", "k", "")


@pytest.mark.parametrize("item", [ITEM[:-1] + b',"phase":"on_success","result":7}', ITEM.replace(b'"op"', b'""')])
def test_an_item_without_a_record_of_its_own_names_none(item: bytes) -> None:
    found = requeue(dead_letter_of(item), "new", ANY)
    assert found is not None
    assert (found.operation_id, found.untold) == ("", "")
    assert b"nonce" not in found.item


def test_bytes_that_were_no_item_for_a_smaller_limit_are_kept_as_they_were() -> None:
    item = ITEM.replace(b'"x"', b'"queue"')
    dead_letter = dead_letter_of(item + b" " * 1000, max_item_bytes=10)
    found = requeue(dead_letter, "new", ANY)
    assert found is not None
    assert (found.untold, json.loads(found.item)) == ("n", {**json.loads(item), "nonce": "new"})
    assert requeue(dead_letter, "new", Acceptance(10)) is None
    read = read_dead_letter(dead_letter, "failures", ANY)
    assert (read.operation_id, read.processor, read.item) == ("", "", json.loads(item))


@pytest.mark.parametrize(
    "dead_letter",
    [
        b"", b"\xff", b"[]", b"{}", b"1", b'{"queue":"high:mails"}', b'{"queue":["high:mails"],"processor":"p"}',
        b'{"queue":"odd:mails","processor":"p"}', b'{"queue":"high:mails","processor":7}',
        b'{"queue":"high:mails","raw_base64":"\\u0000"}', b'{"queue":"high:mails","raw_base64":7}',
        b'{"queue":"high:mails","raw_base64":"AAAA"}', b'{"queue":"high:mails","processor":"p","attempts":"x"}',
        b'{"queue":"high:mails","processor":"p","failed_at":1e999}',
        b'{"queue":"high:mails","processor":"p","operation_id":"a\\"b"}',
        b'{"queue":"high:mails","processor":"p","entity":%b1%b}' % (b"[" * 5000, b"]" * 5000),
    ],
)  # fmt: skip
def test_what_is_no_dead_letter_of_ours_is_shown_and_not_retried(dead_letter: bytes) -> None:
    read = read_dead_letter(dead_letter, "failures", ANY)
    assert (read.raw, read.retryable) == (dead_letter, False)


def test_a_time_that_is_no_float_is_none() -> None:
    dead_letter = b'{"queue":"high:mails","processor":"p","failed_at":%b}' % (b"9" * 400)
    assert read_dead_letter(dead_letter, "failures", ANY).failed_at is None


@given(st.dictionaries(st.sampled_from(MEMBERS), json_values) | json_values)
def test_any_json_is_read(value: Any) -> None:
    dead_letter = json.dumps(value).encode()
    read = read_dead_letter(dead_letter, "failures", ANY)
    assert read_note(dead_letter).where == (read.priority, read.queue)
    found = requeue(dead_letter, "new", ANY)
    assert read.retryable == (found is not None)
    if found is not None:
        assert decode_item(found.item, MOST).attempts == 0


@given(st.binary())
def test_any_bytes_are_read(dead_letter: bytes) -> None:
    assert read_dead_letter(dead_letter, "failures", ANY).raw == dead_letter


def test_a_signature_decides() -> None:
    """The dead letter's or its item's; neither fits another queue, and what comes of it is signed anew."""
    ours, other = signer_of({"a": "a" * 16}), signer_of({"b": "b" * 16})
    signed = ours.sign_dead_letter(b"high:mails", dead_letter_of())
    found = requeue(signed, "new", Acceptance(MOST, ours))
    assert found is not None
    assert found.untold == ""
    assert decode_item(ours.verify(b"high:mails", found.item)).nonce == "new"
    refused = dead_letter_of(ours.sign(b"high:mails", ITEM))
    raw = base64.b64encode(ours.sign(b"high:mails", ITEM))
    raw = b'{"raw_base64":"%b","queue":"high:mails"}' % raw
    for dead_letter in (refused, raw):
        found = requeue(dead_letter, "new", Acceptance(MOST, ours))
        assert found is not None
        assert found.untold == "n"
        assert b'"signature":' in found.item
        assert found.item.count(b"signature") == 1
    for dead_letter in (dead_letter_of(), signed.replace(b"boom", b"bang"), signed.replace(b"high:", b"low:"),
                   refused.replace(b"high:", b"low:"), raw.replace(b"high:", b"low:")):  # fmt: skip
        assert requeue(dead_letter, "new", Acceptance(MOST, ours)) is None
    for dead_letter in (signed, refused, raw):
        assert requeue(dead_letter, "new", Acceptance(MOST, other)) is None


def test_what_cannot_be_decrypted_is_not_retried() -> None:
    class Picky:
        def encrypt(self, plain: bytes) -> bytes:
            return plain

        def decrypt(self, encrypted: bytes) -> bytes:
            if encrypted != b"1":
                raise ValueError
            return encrypted

    acceptance = Acceptance(MOST, cipher=Cipher(Picky()))
    for encrypted, retryable in ((b"1", True), (b"2", False)):
        item = ITEM.replace(b'{"n":1}', b'{"sealed":"%b"}' % base64.b64encode(encrypted))
        read = read_dead_letter(dead_letter_of(item), "failures", acceptance)
        assert read.retryable is retryable
        assert read.item is not None
        assert read.item["entity"].keys() == {"sealed"}


@pytest.mark.parametrize("counts", [{"attempts": 3}, {"attempts": 3, "crashes": 4}], ids=["failed", "poison"])
def test_a_dead_letter_is_the_item_with_the_reason_and_of_poison_how_often_its_worker_died(
    counts: dict[str, int],
) -> None:
    item = b'{"operation_id":"7","processor":"p","crashes":2,"unknown":1.10}'
    dead_letter = encode_dead_letter(item, b"high:mail", "boom", "ValueError", 12.3456, **counts)
    assert b'"unknown":1.10' in dead_letter
    assert json.loads(dead_letter) == {
        "operation_id": "7", "processor": "p", "unknown": 1.1, **counts,
        "failure_reason": "boom", "error_type": "ValueError", "failed_at": 12.346, "queue": "high:mail",
    }  # fmt: skip
