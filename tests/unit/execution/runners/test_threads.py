"""Threads for sync processors: results, errors, context, and threads that are given up."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import pytest

from queue_system.execution.runners.threads import ThreadPool

NAME = "queue-system-processor"


_of_others: set[threading.Thread] = set()


def pool_threads() -> list[threading.Thread]:
    """The threads of this test's pools."""
    return [thread for thread in threading.enumerate() if thread.name == NAME and thread not in _of_others]


@pytest.fixture(autouse=True)
def _tell_apart() -> None:
    """Threads that other tests gave up may still run."""
    _of_others.clear()
    _of_others.update(pool_threads())


async def gone(threads: list[threading.Thread]) -> bool:
    """Wait for threads to end."""
    await asyncio.gather(*(asyncio.to_thread(thread.join, 5.0) for thread in threads))
    return not any(thread.is_alive() for thread in threads)


@pytest.fixture
def make_pool() -> Any:
    """Makes pools of which no thread may outlive the test."""
    pools: list[ThreadPool] = []

    def make(size: int = 2) -> ThreadPool:
        pools.append(ThreadPool(size, asyncio.get_running_loop()))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()
    for thread in pool_threads():
        thread.join(5.0)
    assert not pool_threads()


MakePool = Callable[..., ThreadPool]


async def test_a_call_returns_its_result_from_another_thread(make_pool: MakePool) -> None:
    result, thread = await make_pool().run(lambda argument: (argument, threading.current_thread()), 5)
    assert result == 5
    assert thread is not threading.current_thread()
    assert thread.daemon


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), TimeoutError("mine"), asyncio.CancelledError()])
async def test_an_error_of_the_function_is_raised_itself(make_pool: MakePool, error: BaseException) -> None:
    def fail(_: Any) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await make_pool().run(fail, None)
    assert caught.value is error or isinstance(error, asyncio.CancelledError)


async def test_stop_iteration_becomes_an_error_that_a_future_can_carry(make_pool: MakePool) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await make_pool().run(next, iter(()))


async def test_the_function_sees_a_copy_of_the_callers_context(make_pool: MakePool) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    variable.set("caller")
    pool = make_pool(1)

    def change(value: str) -> str:
        seen = variable.get()
        variable.set(value)
        return seen

    assert [await pool.run(change, "first"), await pool.run(change, "second")] == ["caller", "caller"]
    assert variable.get() == "caller"


async def test_threads_are_used_again_and_grow_with_what_runs_at_once(make_pool: MakePool) -> None:
    pool = make_pool(3)
    assert len({await pool.run(lambda _: threading.get_ident(), None) for _ in range(5)}) == 1
    barrier = threading.Barrier(3, timeout=5)
    await asyncio.gather(*(pool.run(lambda _: barrier.wait(), None) for _ in range(3)))
    assert len(pool_threads()) == 3


async def test_a_cancelled_call_is_given_up_counted_and_replaced(make_pool: MakePool) -> None:
    pool, go_on = make_pool(1), threading.Event()
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(_: Any) -> str:
        loop.call_soon_threadsafe(started.set)
        go_on.wait(5)
        return "late"

    call = asyncio.create_task(pool.run(hang, None))
    await asyncio.wait_for(started.wait(), 5)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert pool.abandoned == 1
    assert await pool.run(lambda argument: argument, "next") == "next"
    abandoned = pool_threads()
    go_on.set()
    pool.close()
    assert await gone(abandoned)
    assert pool.abandoned == 0


async def test_a_call_cancelled_before_a_thread_took_it_never_runs(make_pool: MakePool) -> None:
    pool, go_on = make_pool(1), threading.Event()
    ran: list[str] = []
    first = asyncio.create_task(pool.run(lambda _: go_on.wait(5), None))
    await asyncio.sleep(0)
    pool._threads += 1  # as if all threads were there and busy: none is added, the call waits
    call = asyncio.create_task(pool.run(ran.append, "never"))
    await asyncio.sleep(0)
    pool._threads -= 1
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    go_on.set()
    assert await first is True
    assert await pool.run(lambda argument: argument, "next") == "next"
    assert ran == []
    assert pool.abandoned == 0


async def test_many_calls_at_once_all_come_back(make_pool: MakePool) -> None:
    pool = make_pool(4)
    gate = asyncio.Semaphore(4)

    async def one(n: int) -> int:
        async with gate:
            return int(await pool.run(lambda argument: argument * 2, n))

    assert await asyncio.gather(*map(one, range(500))) == [2 * n for n in range(500)]
    assert len(pool_threads()) <= 4


async def test_closing_lets_idle_threads_end_and_busy_ones_finish(make_pool: MakePool) -> None:
    pool, go_on = make_pool(2), threading.Event()
    await pool.run(lambda _: None, None)
    call = asyncio.create_task(pool.run(lambda _: go_on.wait(5), None))
    await asyncio.sleep(0)
    threads = pool_threads()
    pool.close()
    go_on.set()
    assert await call is True
    assert await gone(threads)


def test_a_thread_whose_loop_is_closed_ends(make_pool: MakePool) -> None:
    """asyncio.run cancels the call and closes the loop while the thread still works."""
    go_on, started = threading.Event(), threading.Event()

    def hang(_: Any) -> None:
        started.set()
        go_on.wait(5)

    async def main() -> None:
        pool = make_pool(1)
        call = asyncio.create_task(pool.run(hang, None))
        await asyncio.to_thread(started.wait, 5)
        assert not call.done()

    asyncio.run(main())
    threads = pool_threads()
    go_on.set()
    for thread in threads:
        thread.join(5)
    assert not pool_threads()


def test_a_result_for_a_closed_loop_ends_its_thread() -> None:
    loop = asyncio.new_event_loop()
    pool, go_on = ThreadPool(1, loop), threading.Event()
    call = pool.run(lambda _: go_on.wait(5), None)
    call.send(None)
    loop.close()
    (thread,) = pool_threads()
    go_on.set()
    thread.join(5)
    assert not thread.is_alive()
    call.close()
