"""Calls in threads: results, limits, context, and an interpreter that exits without waiting."""

from __future__ import annotations

import contextvars
import os
import subprocess
import sys
import threading

import pytest

from queue_system.resilience import abandoned_threads, call_in_thread

LIMIT = 0.03


def test_a_call_returns_the_result_of_its_function() -> None:
    assert call_in_thread(lambda a, *, b: a + b, (1,), {"b": 2}, 10.0) == 3


def test_an_error_of_the_function_is_raised_itself() -> None:
    """The caller gets the same object, an exit or a TimeoutError included."""
    for error in (ValueError("no"), TimeoutError("mine"), SystemExit(3)):

        def fail(error: BaseException = error) -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            call_in_thread(fail, (), {}, 10.0)
        assert caught.value is error


def test_the_function_sees_a_copy_of_the_callers_context() -> None:
    """A context variable is readable in the thread, and a change there does not come back."""
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("caller")

    def change() -> str:
        seen = variable.get()
        variable.set("thread")
        return seen

    assert call_in_thread(change, (), {}, 10.0) == "caller"
    assert variable.get() == "caller"


def test_a_thread_that_passes_its_limit_is_counted_until_it_ends() -> None:
    """TimeoutError names function and limit; the abandoned thread counts while it runs."""
    go_on = threading.Event()
    thread: list[threading.Thread] = []

    def hang() -> None:
        thread.append(threading.current_thread())
        go_on.wait(10)

    before = abandoned_threads()
    with pytest.raises(TimeoutError, match=r"hang did not finish within 0\.03 s"):
        call_in_thread(hang, (), {}, LIMIT)
    assert abandoned_threads() == before + 1
    assert thread[0].daemon
    go_on.set()
    thread[0].join(10)
    assert abandoned_threads() == before


def test_a_limit_beyond_what_the_platform_can_wait_is_no_error() -> None:
    assert call_in_thread(int, ("7",), {}, 1e300) == 7


def test_an_abandoned_thread_does_not_hold_up_interpreter_exit() -> None:
    """A process whose call hangs for a minute ends at once, and with its own exit code."""
    program = """
import sys
import time
from queue_system.resilience import call_in_thread
try:
    call_in_thread(time.sleep, (60,), {}, 0.03)
except TimeoutError:
    sys.exit(7)
"""
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", program], timeout=50, check=False, env=environment)
    assert ended.returncode == 7
