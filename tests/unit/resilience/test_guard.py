"""`try_catch`: logged once, noted, and raised unchanged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from queue_system.errors import QueueSystemError
from queue_system.resilience import try_catch

ERROR_TYPES = [QueueSystemError, ValueError]


class Plain:
    """Has no error log of its own."""

    @try_catch
    def fail(self, error: BaseException) -> None:
        raise error

    @try_catch
    async def fail_async(self, error: BaseException) -> None:
        raise error

    @try_catch
    def outer(self, error: BaseException) -> None:
        self.fail(error)


class Logging(Plain):
    """Has an error log of its own."""

    def __init__(self) -> None:
        self.logged: list[tuple[str, BaseException]] = []

    def _log_error(self, operation: str, error: BaseException) -> None:
        self.logged.append((operation, error))


class Broken(Plain):
    """Has an error log that fails."""

    def _log_error(self, operation: str, error: BaseException) -> None:
        raise RuntimeError("the disk is full")


@pytest.mark.parametrize("kind", ERROR_TYPES)
async def test_the_error_is_logged_noted_and_raised_itself(kind: type[Exception]) -> None:
    """Sync and async, an error of ours or of the application."""
    service = Logging()
    error, error_async = kind("no"), kind("no")
    with pytest.raises(kind) as caught:
        service.fail(error)
    assert caught.value is error
    assert error.__notes__ == ["while running Plain.fail"]
    with pytest.raises(kind) as caught:
        await service.fail_async(error_async)
    assert caught.value is error_async
    assert error_async.__notes__ == ["while running Plain.fail_async"]
    assert service.logged == [("Plain.fail", error), ("Plain.fail_async", error_async)]


def test_nested_methods_log_once_and_note_each() -> None:
    service = Logging()
    error = ValueError("no")
    with pytest.raises(ValueError, match="no"):
        service.outer(error)
    assert service.logged == [("Plain.fail", error)]
    assert error.__notes__ == ["while running Plain.fail", "while running Plain.outer"]


def test_without_an_error_log_the_package_logger_is_used(caplog: pytest.LogCaptureFixture) -> None:
    """One record with the error attached, also for a function without arguments."""

    @try_catch
    def alone() -> None:
        raise ValueError("no")

    calls: list[Callable[[], None]] = [lambda: Plain().fail(ValueError("no")), alone]
    for call in calls:
        caplog.clear()
        with pytest.raises(ValueError, match="no") as caught:
            call()
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("queue_system", logging.ERROR)
        assert record.exc_info is not None
        assert record.exc_info[1] is caught.value


def test_a_failing_error_log_does_not_hide_the_error(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match="no"):
        Broken().fail(ValueError("no"))
    assert [record.getMessage() for record in caplog.records] == [
        "the error log of Plain.fail failed",
        "Plain.fail failed: no",
    ]


@pytest.mark.parametrize("kind", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
def test_cancellations_and_exits_pass_untouched(kind: type[BaseException]) -> None:
    service = Logging()
    error = kind()
    with pytest.raises(kind) as caught:
        service.fail(error)
    assert caught.value is error
    assert not hasattr(error, "__notes__")
    assert not service.logged


async def test_a_call_that_succeeds_returns_its_result() -> None:
    @try_catch
    async def echo(value: str, *, suffix: str) -> str:
        return value + suffix

    @try_catch
    def echo_sync(value: str) -> str:
        return value

    assert await echo("a", suffix="b") == "ab"
    assert echo_sync("a") == "a"
