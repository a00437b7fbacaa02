"""Settlements: what each verdict writes, how many travel together, and that no item or result can break one."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queue_system.execution.delivery import Delivery
from queue_system.execution.outbox import Outbox
from queue_system.execution.settlement import Settlement, Settler, Timing
from queue_system.model.states import Verb
from queue_system.model.verdict import Complete, Fail, Reject, Release, Retry, Verdict
from tests.unit.execution.support import make_delivery, unpack

TIMING = Timing(1_000, 3_000, 2.0)


@dataclasses.dataclass(eq=False)
class Sloppy:
    """Its `__eq__` expects its own kind only."""

    id: int

    def __eq__(self, other: Any) -> bool:  # noqa: PYI032 - the sloppiness under test
        return bool(self.id == other.id)

    def __hash__(self) -> int:
        return self.id


class Exploding:
    """A model whose own dump fails."""

    def model_dump(self, *, mode: str) -> Any:
        raise RuntimeError(mode)


def make_settler(result_ttl: float = 300.0, max_result_bytes: int = 10_000) -> Settler:
    return Settler("host:1", result_ttl, max_result_bytes)


def settle(verdict: Verdict, delivery: Delivery | None = None, result_ttl: float = 300.0) -> Settlement:
    return make_settler(result_ttl).settle(delivery or make_delivery(), verdict, TIMING)


def body_of(record: bytes) -> Any:
    return json.loads(record.partition(b"\n")[2])


def test_a_completion_writes_record_result_and_deduplication_key() -> None:
    settlement = settle(Complete({"a": 1}), make_delivery(5, deduplication_key="key", timestamp=0.5, nonce="n"))
    token, operation_id, record, dedup_key, follow_up = unpack(settlement.packed)
    assert (settlement.verb, settlement.ttl_ms, settlement.timing.duration_s) == ("complete", 300_000, 2.0)
    assert (token, operation_id, dedup_key, follow_up) == (b"5", b"id5", b"key", b"")
    assert record == b'succeeded\tn\t3000\tnormal:p\tkey\t1\t500\t1000\thost:1\n{"result":{"a":1}}'


def test_no_result_is_kept_without_a_lifetime_but_a_tombstone_stays() -> None:
    settlement = settle(Complete("secret"), result_ttl=0.0)
    assert settlement.ttl_ms == 60_000
    assert b"secret" not in settlement.packed
    assert b"boom" not in unpack(settle(Fail("boom", "E"), result_ttl=0.0).packed)[2]


@pytest.mark.parametrize(
    "result",
    [math.nan, {"a": object()}, {"x": "\ud800"}, Exploding(), {1: 1, "1": 2}, 10**5000, "x" * 20_000],
    ids=["NaN", "object", "surrogate", "exploding", "equal names", "too long a number", "too large"],
)
def test_a_result_that_json_cannot_carry_or_that_is_too_large_stays_a_success(result: Any) -> None:
    settlement = settle(Complete(result), make_delivery(on_success="done"))
    _, _, record, _, follow_up = unpack(settlement.packed)
    assert record.startswith(b"succeeded\t")
    assert body_of(record)["result"] is None
    assert body_of(record)["result_error"].startswith("result")
    callback = json.loads(follow_up.partition(b"\n")[2])
    assert callback["result"] is None
    assert callback["result_error"] == body_of(record)["result_error"]


def test_a_result_with_a_sloppy_eq_stays_a_success() -> None:
    record = unpack(settle(Complete(Sloppy(1))).packed)[2]
    assert record.startswith(b"succeeded\t")


def test_a_completion_with_a_callback_leaves_a_callback_item() -> None:
    settlement = settle(Complete([1]), make_delivery(2, b"high:p", on_success="done", crashes=1, unknown="kept"))
    queue, _, item = settlement.follow_up.partition(b"\n")
    assert queue == b"high:p"
    assert json.loads(item) == {
        "operation_id": "id2", "processor": "p", "on_success": "done", "unknown": "kept", "phase": "on_success",
        "result": [1],
    }  # fmt: skip
    assert unpack(settlement.packed)[4] == settlement.follow_up


def test_a_finished_callback_writes_no_record() -> None:
    settlement = settle(Complete("ignored"), make_delivery(phase="on_success", on_success="done"))
    assert unpack(settlement.packed) == [b"1", b"", b"", b"", b""]


def test_a_retry_writes_the_changed_item_and_its_delay() -> None:
    delivery = make_delivery(4, attempts=1, first_attempt_time=0.25, crashes=1, unknown="kept")
    token, operation_id, record, value, delay_ms = unpack(settle(Retry(1.5, "boom", "E"), delivery).packed)
    assert (token, operation_id, delay_ms) == (b"4", b"id4", b"1500")
    assert record.startswith(b"delayed\t\t4500\tnormal:p\t\t2\t")
    assert body_of(record) == {"error": "boom", "error_type": "E"}
    queue, _, item = value.partition(b"\n")
    assert queue == b"normal:p"
    assert json.loads(item) == {
        "operation_id": "id4", "processor": "p", "attempts": 2, "first_attempt_time": 0.25, "due": 4.5,
        "unknown": "kept",
    }  # fmt: skip


def test_the_first_retry_remembers_when_the_first_attempt_began() -> None:
    item = unpack(settle(Retry(0.0, "boom", "E")).packed)[3].partition(b"\n")[2]
    assert json.loads(item)["first_attempt_time"] == 1.0


def test_a_failure_writes_record_and_dead_letter() -> None:
    settlement = settle(Fail("boom", "ValueError"), make_delivery(attempts=2, deduplication_key="key"))
    token, operation_id, record, dedup_key, follow_up, dead_letter = unpack(settlement.packed)
    assert (settlement.verb, token, operation_id, dedup_key, follow_up) == ("fail", b"1", b"id1", b"key", b"")
    assert record.startswith(b"failed\t")
    assert body_of(record) == {"error": "boom", "error_type": "ValueError"}
    fields = json.loads(dead_letter)
    assert (fields["attempts"], fields["failure_reason"], fields["error_type"]) == (3, "boom", "ValueError")
    assert (fields["failed_at"], fields["queue"]) == (3.0, "normal:p")


def test_a_rejection_spends_no_attempt_and_calls_on_failure() -> None:
    settlement = settle(Reject("no name", "E"), make_delivery(attempts=2, on_failure="sorry", on_failure_module="m"))
    *_, record, _, follow_up, dead_letter = unpack(settlement.packed)
    assert record.startswith(b"rejected\t")
    assert json.loads(dead_letter)["attempts"] == 2
    callback = json.loads(follow_up.partition(b"\n")[2])
    assert (callback["phase"], callback["error"], callback["error_type"]) == ("on_failure", "no name", "E")


def test_a_rejected_callback_keeps_its_phase_in_the_dead_letter_and_leaves_the_record() -> None:
    settlement = settle(Reject("no name", "E"), make_delivery(phase="on_failure", on_failure="sorry"))
    token, operation_id, record, dedup_key, follow_up, dead_letter = unpack(settlement.packed)
    assert (token, operation_id, record, dedup_key, follow_up) == (b"1", b"", b"", b"", b"")
    assert json.loads(dead_letter)["phase"] == "on_failure"


def test_a_very_long_error_is_cut() -> None:
    dead_letter = json.loads(unpack(settle(Fail("x" * 100_000, "E")).packed)[-1])
    assert len(dead_letter["failure_reason"]) < 9_000
    assert dead_letter["failure_reason"].endswith("(100000 characters)")


LONG_NAME = "E" * 100_000
LONG_NAMED = type(LONG_NAME, (ValueError,), {})


@pytest.mark.parametrize(
    "result",
    [{"k" * 400_000: "\ud800"}, {"k" * 400_000: {"l" * 400_000: math.nan}}, {"\ud800" * 400_000: 1}, [LONG_NAMED()]],
    ids=["text below a long name", "number below long names", "long name", "value of a long-named type"],
)
def test_why_a_result_was_lost_is_cut(result: Any) -> None:
    delivery = make_delivery(on_success="f")
    _, _, record, _, follow_up = unpack(settle(Complete(result), delivery).packed)
    assert 0 < len(json.loads(record.partition(b"\n")[2])["result_error"]) < 9_000
    assert len(follow_up) < 10_000


@pytest.mark.parametrize("verdict", [Fail("e", LONG_NAME), Reject("e", LONG_NAME), Retry(1, "e", LONG_NAME)])
def test_a_very_long_type_of_an_error_is_cut(verdict: Verdict) -> None:
    assert len(settle(verdict, make_delivery(on_failure="f")).packed) < 40_000


def test_a_release_and_a_running_note_name_the_token() -> None:
    assert unpack(settle(Release(), make_delivery(9)).packed) == [b"9"]
    note = make_settler().running(make_delivery(9), 1_000, 2_000)
    token, operation_id, record = unpack(note.packed)
    assert (note.verb, token, operation_id) == ("running", b"9", b"id9")
    assert record.startswith(b"running\t\t2000\t")


@pytest.mark.parametrize("verdict", [Retry(0.0, "\udcff", "E"), Fail("\udcff", "E"), Reject("\ud800", "E")])
def test_an_error_text_with_lone_surrogates_can_be_settled(verdict: Verdict) -> None:
    assert settle(verdict, make_delivery(on_failure="sorry")).packed


def put_all(outbox: Outbox, *verdicts: Verdict) -> None:
    for token, verdict in enumerate(verdicts, 1):
        outbox.put(settle(verdict, make_delivery(token)))


def test_settlements_travel_in_groups_of_one_verb() -> None:
    outbox = Outbox()
    put_all(outbox, Release(), Complete(1), Release(), Fail("e", "E"))
    batch = outbox.take(1000)
    assert batch is not None
    arguments = unpack(batch.packed)
    assert arguments[:5] == [b"release", b"0", b"2", b"1", b"3"]
    assert arguments[5:8] == [b"plain", b"300000", b"1"]
    assert len(arguments) == batch.count
    assert [s.delivery.token for s in batch.settlements] == [1, 3, 2, 4]
    assert batch.durations() == [2.0, 2.0]
    assert not outbox


@given(st.lists(st.sampled_from([Release(), Complete(1), Retry(1.0, "e", "E")]), max_size=30), st.integers(1, 7))
def test_every_settlement_is_taken_once_and_never_too_many(verdicts: list[Verdict], most: int) -> None:
    outbox = Outbox()
    put_all(outbox, *verdicts)
    tokens: list[int] = []
    serials: list[int] = []
    while (batch := outbox.take(most)) is not None:
        assert 0 < len(batch.settlements) <= most
        assert len(unpack(batch.packed)) == batch.count
        tokens += [settlement.delivery.token for settlement in batch.settlements]
        serials.append(batch.serial)
    assert sorted(tokens) == list(range(1, len(verdicts) + 1))
    assert serials == sorted(set(serials))


def test_what_is_handed_back_travels_before_verdicts_and_a_note_before_both() -> None:
    """So a claim that follows the batch finds it in its list, however many verdicts were waiting."""
    outbox = Outbox()
    put_all(outbox, Complete(1), Complete(2), Complete(3), Release())
    outbox.put(make_settler().running(make_delivery(9), 1_000, 2_000))
    assert outbox.hands_back
    batch = outbox.take(3)
    assert batch is not None
    assert [settlement.verb for settlement in batch.settlements] == ["running", "release", "complete"]
    assert not outbox.hands_back


def test_a_cleared_outbox_is_empty() -> None:
    outbox = Outbox()
    put_all(outbox, Release())
    outbox.clear()
    assert not outbox
    assert outbox.take(10) is None


@pytest.mark.parametrize("sizes", [[3] * 10, [1, 9, 1, 1], [9, 9], [8, 1], [1] * 3], ids=str)
def test_a_batch_has_about_eight_mebibytes_and_at_least_one_settlement(sizes: list[int]) -> None:
    outbox = Outbox()
    for number, mebibytes in enumerate(sizes):
        verb = (Verb.COMPLETE, Verb.RETRY, Verb.FAIL)[number % 3]
        outbox.put(Settlement(make_delivery(number), verb, b"x" * mebibytes * 1024 * 1024))
    batches = []
    while batch := outbox.take(400):
        batches.append(batch)
    assert sorted(s.delivery.token for batch in batches for s in batch.settlements) == list(range(len(sizes)))
    assert len(outbox) == 0
    for batch in batches:
        assert len(batch.packed) < 8 * 1024 * 1024 + 1000 or len(batch.settlements) == 1
        assert batch.packed.count(b"x") == sum(len(s.packed) for s in batch.settlements)
