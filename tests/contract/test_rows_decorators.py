"""What the rows of the decorators promise, imported as users do, and the decisions about them."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from queue_system import CircuitOpenError, InvalidInputError
from queue_system.resilience import backoff_delay
from tests.contract.support import python
from tests.kit.waiting import DEADLINE_S, wait_until
from utils import circuit_breaker, retry_with_backoff, try_catch, with_timeout

SECRET = contextvars.ContextVar("SECRET", default="unset")


@pytest.fixture
def name() -> str:
    """The name of a circuit that no other test uses."""
    return f"circuit {uuid.uuid4()}"


async def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a sync or an async function."""
    result = function(*arguments)
    return await result if asyncio.iscoroutine(result) else result


def raising(error: BaseException, *, is_async: bool, calls: list[int]) -> Callable[[], Any]:
    """A function that counts its calls and raises."""

    def in_thread() -> None:
        calls.append(1)
        raise error

    async def in_loop() -> None:
        in_thread()

    return in_loop if is_async else in_thread


@pytest.mark.parametrize("is_async", [False, True])
async def test_with_timeout_raises_timeout_error_at_the_limit(is_async: bool) -> None:
    gate = threading.Event()

    def waits() -> None:
        gate.wait(DEADLINE_S)

    async def awaits() -> None:
        await asyncio.Event().wait()

    function: Callable[..., Any] = awaits if is_async else waits
    try:
        with pytest.raises(TimeoutError):
            await call(with_timeout(default_timeout=0.02)(function))
    finally:
        gate.set()


async def test_with_timeout_runs_a_sync_function_in_a_thread_with_the_callers_context() -> None:
    SECRET.set("told")
    seen = with_timeout()(lambda: (SECRET.get(), threading.current_thread()))()
    assert seen[0] == "told"
    assert seen[1] is not threading.current_thread()


@pytest.mark.parametrize("is_async", [False, True])
async def test_with_timeout_passes_results_and_errors(is_async: bool) -> None:
    error = LookupError("its own")

    async def adds(a: int, b: int) -> int:
        return a + b

    add: Callable[..., Any] = adds if is_async else (lambda a, b: a + b)
    assert await call(with_timeout(5.0)(add), 1, 2) == 3
    with pytest.raises(LookupError) as caught:
        await call(with_timeout(5.0)(raising(error, is_async=is_async, calls=[])))
    assert caught.value is error


@pytest.mark.parametrize("is_async", [False, True])
async def test_circuit_breaker_rejects_after_the_threshold_until_a_trial_succeeds(name: str, is_async: bool) -> None:
    calls: list[int] = []
    down = True

    def serves() -> int:
        calls.append(1)
        if down:
            raise ConnectionError("down")
        return 42

    async def serves_later() -> int:
        return serves()

    service: Callable[..., Any] = serves_later if is_async else serves
    guarded = circuit_breaker(name=name, failure_threshold=3, recovery_timeout=0.1)(service)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            await call(guarded)
    with pytest.raises(CircuitOpenError) as caught:
        await call(guarded)
    assert len(calls) == 3
    assert 0 < caught.value.retry_after <= 0.1
    down = False
    results: list[int] = []
    async with asyncio.timeout(DEADLINE_S):
        while not results:
            try:
                results.append(await call(guarded))
            except CircuitOpenError as rejected:
                await asyncio.sleep(rejected.retry_after)
    assert await call(guarded) == 42


async def test_half_open_max_calls_bounds_the_trials(name: str) -> None:
    gate = asyncio.Event()
    down = True

    async def serves() -> None:
        if down:
            raise ConnectionError
        await gate.wait()

    guarded = circuit_breaker(name, failure_threshold=1, recovery_timeout=0.001, half_open_max_calls=2)(serves)
    with pytest.raises(ConnectionError):
        await guarded()
    down = False
    await asyncio.sleep(0.002)
    trials = [asyncio.create_task(guarded()) for _ in range(5)]
    _, running = await asyncio.wait(trials, timeout=DEADLINE_S, return_when=asyncio.FIRST_EXCEPTION)
    gate.set()
    await asyncio.gather(*running)
    outcomes = [type(task.exception()) for task in trials]
    assert outcomes.count(CircuitOpenError) == 3
    assert outcomes.count(type(None)) == 2


def test_failures_older_than_the_window_do_not_open(name: str) -> None:
    guarded = circuit_breaker(name, failure_threshold=2, window_size=1e-9)(raising(OSError(), is_async=False, calls=[]))
    for _ in range(5):
        with pytest.raises(OSError):  # noqa: PT011 - it must not be CircuitOpenError
            guarded()


def test_one_name_is_one_breaker_and_conflicting_parameters_raise(name: str) -> None:
    fails = circuit_breaker(name, failure_threshold=1)(raising(OSError(), is_async=False, calls=[]))
    works = circuit_breaker(name, failure_threshold=1)(lambda: None)
    with pytest.raises(OSError):  # noqa: PT011 - see above
        fails()
    with pytest.raises(CircuitOpenError):
        works()
    with pytest.raises(InvalidInputError, match="failure_threshold"):
        circuit_breaker(name, failure_threshold=2)(lambda: None)


async def test_a_cancellation_is_no_failure(name: str) -> None:
    calls: list[int] = []
    guarded = circuit_breaker(name, failure_threshold=1)(raising(asyncio.CancelledError(), is_async=True, calls=calls))
    for _ in range(3):
        with pytest.raises(asyncio.CancelledError):
            await guarded()
    assert len(calls) == 3


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(
    "arguments, error, count",
    [
        ({"max_retries": 2, "base_delay": 0.001}, OSError("any"), 3),
        ({"max_retries": 0}, OSError("any"), 1),
        ({"max_retries": 2, "base_delay": 0.001, "exceptions": (ConnectionError,)}, ConnectionError(), 3),
        ({"exceptions": (ConnectionError,)}, LookupError("another"), 1),
        ({"max_retries": 3, "base_delay": 30.0, "max_delay": 30.0, "total_timeout": 1.0}, OSError("late"), 1),
        ({"max_retries": 3, "base_delay": 30.0, "max_delay": 0.001}, OSError("capped"), 4),
    ],
)
async def test_retry_with_backoff_repeats_selected_errors_and_raises_the_last_itself(
    is_async: bool, arguments: dict[str, Any], error: Exception, count: int
) -> None:
    calls: list[int] = []
    with pytest.raises(type(error)) as caught:
        await call(retry_with_backoff(**arguments)(raising(error, is_async=is_async, calls=calls)))
    assert caught.value is error
    assert len(calls) == count


@pytest.mark.parametrize("retry, expected", [(0, 0.5), (1, 1.0), (3, 4.0), (9, 5.0)])
def test_the_waits_double_up_to_the_largest_with_a_quarter_of_jitter(retry: int, expected: float) -> None:
    waits = [backoff_delay(retry, base_delay=0.5, max_delay=5.0) for _ in range(200)]
    assert all(0.75 * expected <= wait <= 1.25 * expected for wait in waits)
    assert len(set(waits)) > 100


@pytest.mark.parametrize("is_async", [False, True])
async def test_try_catch_logs_adds_context_and_raises_the_error_itself(
    is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    error = LookupError("no such thing")
    function = raising(error, is_async=is_async, calls=[])
    with pytest.raises(LookupError) as caught:
        await call(try_catch(function))
    assert caught.value is error
    assert any(function.__qualname__ in note for note in error.__notes__)
    assert len(caplog.records) == 1


def test_a_timed_out_thread_ends_when_its_work_does() -> None:
    gate, ended = threading.Event(), threading.Event()

    @with_timeout(default_timeout=0.01)
    def waits() -> None:
        gate.wait(DEADLINE_S)
        ended.set()

    with pytest.raises(TimeoutError):
        waits()
    gate.set()
    wait_until(ended.is_set)


@pytest.mark.parametrize("first", ["utils", "utils.helpers"])
def test_a_project_s_folder_utils_without_an_init_file_works_beside_ours(tmp_path: Path, first: str) -> None:
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "helpers.py").write_text("HELP = 5")
    program = (
        f"import {first}\nfrom utils.helpers import HELP\nfrom utils import with_timeout\nprint(HELP, with_timeout)"
    )
    with python("-c", program, cwd=tmp_path) as process:
        output, errors = process.communicate(timeout=30)
    assert output.startswith("5 <function with_timeout"), errors
