"""The formats that scripts write and Python reads: read back as they were written; foreign bytes raise nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from queue_system.model import formats

QUEUES = st.sampled_from([b"high:mails", b"low:a b", "normal:größe".encode()])
NONCES = st.binary().filter(lambda nonce: b"\n" not in nonce)


@given(QUEUES, st.binary())
def test_a_value_is_split_as_it_was_joined(queue: bytes, item: bytes) -> None:
    assert formats.split_value(formats.join_value(queue, item)) == (queue, b"\n", item)


@given(NONCES, QUEUES, st.binary())
def test_a_delayed_member_holds_a_value_behind_its_nonce(nonce: bytes, queue: bytes, item: bytes) -> None:
    assert formats.split_member(nonce + b"\n" + formats.join_value(queue, item)) == (queue, item)


def test_a_worker_is_known_by_its_id_dead_or_alive() -> None:
    worker_id = formats.new_worker_id("host:7")
    assert worker_id != formats.new_worker_id("host:7")
    assert formats.place_of(worker_id) == "host:7"
    assert formats.is_dead(formats.dead(worker_id))
    assert not formats.is_dead(worker_id)
    assert formats.id_of(formats.dead(worker_id)) == formats.id_of(worker_id) == worker_id


def test_an_id_of_an_older_release_tells_no_place() -> None:
    assert formats.place_of("0123abcd") == ""


def test_an_entry_tells_beats_and_lease() -> None:
    assert formats.beats_of(b"12:15000") == 12
    assert formats.lease_s_of(b"12:15000", 1.0) == 15.0


@given(st.binary())
def test_foreign_bytes_raise_nothing_wherever_they_stand(text: bytes) -> None:
    formats.split_member(text)
    formats.split_rest(text)
    assert formats.beats_of(text) >= 0
    assert formats.lease_s_of(text, 7.0) >= 0


def test_numbers_of_more_than_64_bits_count_as_none() -> None:
    assert formats.lease_s_of(b"1:" + b"9" * 400, 0.2) == 0.2
    assert formats.beats_of(b"9" * 400 + b":1") == 0


def test_a_score_that_is_not_finite_is_zero() -> None:
    assert [formats.whole_ms(score) for score in (b"inf", b"-inf", b"nan", b"17.5")] == [0, 0, 0, 17]
