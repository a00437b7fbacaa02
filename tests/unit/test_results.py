"""A record hands out the result of its operation, or says why there is none."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from queue_system import OperationFailedError, OperationRecord, ResultUnavailableError


def record(**members: Any) -> OperationRecord:
    usual = {"operation_id": "mail-1", "queue": "send_mail", "priority": "normal", "attempts": 1}
    return OperationRecord(**{**usual, **members})


@pytest.mark.parametrize("result", [None, 0, "", [], {"sent_to": "ada@example.org"}])
def test_a_success_gives_its_result_whatever_it_is(result: object) -> None:
    assert record(status="succeeded", result=result).result_or_raise() == result


@pytest.mark.parametrize("status", ["failed", "system_error"])
def test_a_failure_raises_and_tells_the_type_and_text_of_the_error(status: str) -> None:
    failed = record(status=status, error="no such address", error_type="ValueError")
    with pytest.raises(OperationFailedError) as caught:
        failed.result_or_raise()
    assert str(caught.value) == f"operation mail-1 ended as {status}: ValueError: no such address"
    assert (caught.value.operation_id, caught.value.status) == ("mail-1", status)
    assert (caught.value.error_type, caught.value.error) == ("ValueError", "no such address")


def test_a_failure_without_a_known_reason_says_so() -> None:
    with pytest.raises(OperationFailedError, match="the reason is not known"):
        record(status="failed").result_or_raise()


@pytest.mark.parametrize("status", ["queued", "delayed", "running"])
def test_what_is_not_finished_raises_and_names_the_way_to_wait(status: str) -> None:
    with pytest.raises(ResultUnavailableError, match=rf"mail-1 .* it is {status}, not finished; wait_for"):
        record(status=status).result_or_raise()


def test_a_result_that_could_not_be_kept_raises_with_the_reason() -> None:
    with pytest.raises(ResultUnavailableError, match="result: expected a value that JSON can carry, got socket"):
        record(
            status="succeeded", result_error="result: expected a value that JSON can carry, got socket"
        ).result_or_raise()


def test_both_errors_survive_pickling() -> None:
    for error in (OperationFailedError("a", "failed", "KeyError", None), ResultUnavailableError("a", "not kept")):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
