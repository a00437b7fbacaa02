"""`with_timeout` on async and sync functions and methods."""

from __future__ import annotations

import asyncio
import threading

import pytest

from queue_system.resilience import with_timeout

LIMIT = 0.03


class Service:
    """Methods to limit."""

    def __init__(self) -> None:
        self.cancelled = False

    @with_timeout(default_timeout=10.0)
    async def echo(self, value: str, *, suffix: str = "") -> str:
        await asyncio.sleep(0)
        return value + suffix

    @with_timeout(default_timeout=10.0)
    def echo_sync(self, value: str, *, suffix: str = "") -> str:
        return value + suffix

    @with_timeout(default_timeout=LIMIT)
    async def hang(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled = True


async def test_a_call_within_the_limit_returns_its_result() -> None:
    service = Service()
    assert await service.echo("a", suffix="b") == "ab"
    assert service.echo_sync("a", suffix="b") == "ab"


async def test_an_async_call_is_cancelled_at_the_limit() -> None:
    """TimeoutError names function and limit, and the function saw its cancellation."""
    service = Service()
    with pytest.raises(TimeoutError, match=r"Service\.hang did not finish within 0\.03 s"):
        await service.hang()
    assert service.cancelled


def test_a_sync_call_raises_at_the_limit() -> None:
    """TimeoutError names function and limit while the function still runs."""
    go_on = threading.Event()

    @with_timeout(LIMIT)
    def hang() -> None:
        go_on.wait(10)

    with pytest.raises(TimeoutError, match=r"hang did not finish within 0\.03 s"):
        hang()
    go_on.set()


@pytest.mark.parametrize("own", [TimeoutError("the function's own"), LookupError("another")])
async def test_an_error_of_the_function_passes_unchanged(own: Exception) -> None:
    """It is raised as the same object, async and sync, a TimeoutError too."""

    @with_timeout(10.0)
    async def fail() -> None:
        raise own

    @with_timeout(10.0)
    def fail_sync() -> None:
        raise own

    with pytest.raises(type(own)) as caught:
        await fail()
    assert caught.value is own
    with pytest.raises(type(own)) as caught:
        fail_sync()
    assert caught.value is own


async def test_an_own_timeout_error_in_answer_to_the_limit_passes_unchanged() -> None:
    """A function that turns its cancellation into its own TimeoutError keeps its own message."""

    @with_timeout(LIMIT)
    async def translate() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise TimeoutError("translated") from None

    with pytest.raises(TimeoutError, match=r"^translated$"):
        await translate()


async def test_a_cancellation_from_outside_is_passed_on() -> None:
    started = asyncio.Event()

    @with_timeout(10.0)
    async def hang() -> None:
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(hang())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_the_inner_of_two_limits_names_itself() -> None:
    @with_timeout(LIMIT)
    async def inner() -> None:
        await asyncio.Event().wait()

    @with_timeout(10.0)
    async def outer() -> None:
        await inner()

    with pytest.raises(TimeoutError, match=r"inner did not finish"):
        await outer()
