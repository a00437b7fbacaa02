"""Distinguishes what a signal's handler has raised from what other code raises."""

from __future__ import annotations

import contextlib
import signal
import threading
import traceback
from types import CodeType
from typing import Any, Final

__all__ = ["sent_by_a_signal"]

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGALRM)


def sent_by_a_signal(error: BaseException) -> bool:
    """Return whether a signal's handler raised an error in this thread, as far as can be known."""
    if threading.current_thread() is not threading.main_thread():
        return False
    if issubclass(type(error), KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        return True  # it leaves no trace of its own; a Ctrl-C must not be lost
    codes = {frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)}
    return not codes.isdisjoint(_codes_of_handlers())


def _codes_of_handlers() -> set[CodeType]:
    codes = set()
    for number in _ENDING:
        with contextlib.suppress(Exception):  # whatever attributes an application's handler has
            codes.add(_code_of(signal.getsignal(number)))
    return codes


def _code_of(handler: Any) -> CodeType:
    """Return the code of a function, a method, a partial or an object that is called."""
    called = getattr(handler, "func", handler)
    code: CodeType = (called if hasattr(called, "__code__") else type(called).__call__).__code__
    return code
