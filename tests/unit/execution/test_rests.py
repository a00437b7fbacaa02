"""Rests: a few unresolvable operations of a queue are rejected, then it is left alone for a growing time."""

from __future__ import annotations

import pytest

from queue_system.execution.rests import FEW, LONGEST_S, REGAIN_S, SHORTEST_S, Rests, may_be_known
from queue_system.metrics import MetricsRecorder, StructuredLogger
from tests.kit.logs import LineLogger


class Setting:
    """Rests with a clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.log = LineLogger()
        log = StructuredLogger.wrap(self.log)
        self.metrics = MetricsRecorder(log)
        self.rests = Rests(log, self.metrics, lambda: self.now)

    def miss(self, times: int, queue: str = "a") -> list[bool]:
        """Miss operations of a queue; tell which must wait."""
        return [self.rests.missed(queue, "why")[1] for _ in range(times)]

    def refuse(self, queue: str) -> None:
        """Find no room among the system errors for an operation of a queue."""
        self.rests.refused(queue, "op", "shop.charge", "it is unknown")


@pytest.fixture
def setting() -> Setting:
    return Setting()


def test_a_few_are_rejected_then_the_queue_rests_and_the_others_wait(setting: Setting) -> None:
    assert setting.miss(FEW - 1) == [False] * (FEW - 1)
    assert setting.rests.resting() == []
    assert setting.miss(2) == [False, True]
    assert setting.rests.resting() == ["a"]
    assert setting.rests.left_s() == SHORTEST_S
    assert setting.rests.take_notes() == [("a", 1000, "why")]
    assert setting.rests.take_notes() == []
    assert setting.metrics.snapshot()["queue_rests"] == 1


def test_each_rest_is_twice_as_long_as_the_one_before_up_to_a_limit(setting: Setting) -> None:
    rests = []
    for _ in range(8):
        setting.miss(FEW)
        rests.append(setting.rests.left_s())
        setting.now += rests[-1] or 0
        assert setting.rests.resting() == []
    assert rests == [1, 2, 4, 8, 16, LONGEST_S, LONGEST_S, LONGEST_S]


def test_what_must_wait_waits_longer_from_time_to_time(setting: Setting) -> None:
    setting.miss(FEW)
    waits = [setting.rests.missed("a", "why")[0] for _ in range(20 * FEW)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (SHORTEST_S, LONGEST_S)


def test_one_resolved_operation_ends_the_rest_and_the_row(setting: Setting) -> None:
    setting.miss(FEW)
    setting.rests.take_notes()
    setting.rests.resolved("a")
    assert setting.rests.resting() == []
    assert setting.rests.take_notes() == [("a", 0, "why")]
    setting.miss(FEW - 1)
    assert setting.rests.resting() == []
    setting.miss(1)
    assert setting.rests.left_s() == SHORTEST_S


def test_other_processors_in_between_do_not_let_more_be_rejected(setting: Setting) -> None:
    waited = []
    for _ in range(10 * FEW):
        waited += setting.miss(1)
        setting.rests.resolved("a")
    assert waited.count(False) == FEW
    assert setting.rests.resting() == []


def test_one_more_may_be_rejected_after_a_minute(setting: Setting) -> None:
    setting.miss(FEW)
    setting.now += REGAIN_S
    assert setting.miss(2) == [False, True]


def test_a_queue_is_forgotten_when_all_was_resolved_for_long(setting: Setting) -> None:
    setting.miss(1)
    setting.rests.resolved("a")
    assert "a" in setting.rests.queues
    setting.now += REGAIN_S
    setting.rests.resolved("a")
    assert not setting.rests.queues


def test_queues_rest_each_for_itself_and_their_number_is_bounded(setting: Setting) -> None:
    setting.miss(FEW, "a")
    setting.miss(1, "b")
    assert setting.rests.resting() == ["a"]
    for n in range(1100):
        setting.miss(1, f"q{n}")
    assert len(setting.rests.queues) == 1000


def test_a_worker_whose_dead_letters_are_full_leaves_the_queue_alone_at_once(setting: Setting) -> None:
    setting.refuse("a")
    setting.refuse("a")
    assert setting.rests.left_s() == SHORTEST_S


def test_that_the_dead_letters_are_full_is_told_once_a_minute_for_each_queue_with_how_many_stayed(
    setting: Setting,
) -> None:
    """Also in the reason of the rest, until one of the queue finds room again."""
    for queue in ("a", "b", "a", "a"):
        setting.miss(1, queue)
        setting.refuse(queue)
    setting.now += 60
    setting.refuse("a")
    told = setting.log.of(FULL_LINE)
    assert [(line["queue"], line["kept"]) for line in told] == [("a", 1), ("b", 1), ("a", 3)]
    assert (told[0]["processor"], told[0]["error"]) == ("shop.charge", "it is unknown")
    assert not setting.log.of(RESTS)
    assert {note[2] for note in setting.rests.take_notes()} == {"system_errors is full; why"}
    setting.rests.accepted("a")
    setting.now += LONGEST_S
    setting.miss(FEW, "a")
    assert {note[2]: note[1] for note in setting.rests.take_notes()} == {"system_errors is full; why": 0, "why": 4000}


FULL_LINE = (
    "system_errors is full: what cannot be resolved stays in its queue; retry or drop dead letters,"
    " or raise max_dead_letters"
)


def test_the_log_has_one_line_for_many_rests_in_a_row(setting: Setting) -> None:
    for _ in range(5):
        setting.miss(FEW)
        setting.now += LONGEST_S
    assert len(setting.log.of(RESTS)) == 1


RESTS = "the queue is left alone: this worker cannot resolve what it holds; other workers go on with it"


@pytest.mark.parametrize(
    "name, module, known",
    [
        ("charge", "shop.lacking", True),
        ("charge", None, True),
        ("outer.<locals>.<lambda>#2", "shop", True),
        ("système", "boutique", True),
        ("", "shop", False),
        ("rm -rf", "shop", False),
        ("charge", "shop\n", False),
        ("system", "os", False),
    ],
)
def test_what_no_worker_can_know_is_no_miss(name: str, module: str | None, *, known: bool) -> None:
    assert may_be_known(name, module) is known
