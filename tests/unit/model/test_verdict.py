"""The verdict: what becomes of an operation for each outcome of an execution."""

from __future__ import annotations

from typing import Any

import pytest

from queue_system.model.operation import Operation
from queue_system.model.verdict import (
    Complete,
    Fail,
    Interrupted,
    Outcome,
    Raised,
    Reject,
    Release,
    Retry,
    Succeeded,
    Unprocessable,
    Verdict,
    judge,
)

ERROR = Raised("boom", "ValueError")
FAILED = Fail("boom", "ValueError")
CALLBACKS = ("on_success", "on_failure")


def operation(**members: Any) -> Operation:
    return Operation(operation_id="7", processor="p", **members)


@pytest.mark.parametrize(
    "members, outcome, verdict",
    [
        *(({}, Succeeded(result), Complete(result)) for result in (None, 0, {"a": 1}, object())),
        ({"attempts": 4}, Interrupted(), Release()),
        ({}, Unprocessable("no such name", "E"), Reject("no such name", "E")),
        *(({"attempts": attempts, "max_attempts": 3}, ERROR, FAILED) for attempts in (2, 3, 99)),
        ({"max_attempts": 1}, ERROR, FAILED),
        ({"delays": [0.0]}, Raised("late", "TimeoutError", timed_out=True), Retry(0.0, "late", "TimeoutError")),
        *(({"phase": phase}, ERROR, Reject(f"{phase} callback: boom", "ValueError")) for phase in CALLBACKS),
    ],
)
def test_the_verdict_follows_from_the_outcome(members: dict[str, Any], outcome: Outcome, verdict: Verdict) -> None:
    """A success completes with its result, an interruption releases, what cannot be processed is rejected.

    An error of the last attempt fails, a time-out is retried like any error, and a callback's error is rejected with
    its phase.
    """
    assert judge(operation(**members), outcome, 1.0, 2.0) == verdict


@pytest.mark.parametrize("attempts", [0, 1])
def test_an_error_is_retried_after_the_delay_of_its_attempt(attempts: int) -> None:
    verdict = judge(operation(attempts=attempts, max_attempts=3, delays=[10.0, 20.0]), ERROR, 1.0, 2.0)
    assert isinstance(verdict, Retry)
    assert verdict.delay == pytest.approx([10, 20][attempts], rel=0.11)
    assert (verdict.error, verdict.error_type) == ("boom", "ValueError")


@pytest.mark.parametrize(
    "first, now, retried",
    [(None, 104.0, True), (None, 106.0, False), (95.0, 99.5, True), (90.0, 100.0, False), (200.0, 100.0, True)],
)
def test_no_retry_starts_after_the_total_timeout(first: float | None, now: float, retried: bool) -> None:
    """The total of 10 s runs from the first attempt, which is this one if none is on record; the delay is 5 s."""
    verdict = judge(operation(delays=[5.0], retry_timeout=10.4, first_attempt_time=first), ERROR, 100.0, now)
    assert isinstance(verdict, Retry) is retried
    if isinstance(verdict, Fail):
        assert verdict.error.startswith("boom (no retry: the total timeout of 10.4 s")


@pytest.mark.parametrize(
    "members",
    [{"max_attempts": 0}, {"delays": [-1.0]}, {"delays": []}, {"retry_timeout": 0.0}],
)
def test_retry_settings_of_a_foreign_item_that_make_no_sense_are_rejected(members: dict[str, Any]) -> None:
    verdict = judge(operation(**members), ERROR, 1.0, 2.0)
    assert isinstance(verdict, Reject)
    assert "retry settings" in verdict.error


@pytest.mark.parametrize("attempts", [-1, -(2**63)])
def test_a_foreign_attempt_count_below_zero_never_raises(attempts: int) -> None:
    assert isinstance(judge(operation(attempts=attempts), ERROR, 1.0, 2.0), (Retry, Fail, Reject))
