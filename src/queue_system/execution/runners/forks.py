"""Ends a forked child of a worker's process where it would do its parent's part.

A processor may fork. Child and parent share the event loop's selector and wake-up socket, and the worker's connections:
a child that came back to the event loop would take replies and signals from its parent.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import signal
import sys
import threading
import weakref
from collections import deque
from typing import Final, Protocol

from queue_system.logs import printable
from queue_system.tracebacks import trace

__all__ = ["Inherited", "disown_signals", "guard", "leave_if_forked", "release", "silence"]


class Inherited(Protocol):
    """What a child must give up."""

    def cut_off(self) -> None:
        """Note that this process is a child that was forked just now."""


_ASYNCIO_HANDLER: Final = getattr(asyncio.unix_events, "_sighandler_noop", None)
"""What asyncio sets for a signal that its wake-up descriptor brings to the event loop."""

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOPS: Final = (asyncio.AbstractEventLoop, asyncio.Runner)

_owners: list[type] = list(_LOOPS)
_masks: dict[int, set[int]] = {}
_dropped: list[object] = []
"""Keeps what will not run in a child: a coroutine that nobody holds runs its `finally` blocks."""
_guarded: weakref.WeakSet[Inherited] = weakref.WeakSet()


def guard(inherited: Inherited) -> None:
    """Cut it off in every child that is forked from now on."""
    _guarded.add(inherited)


def release(inherited: Inherited) -> None:
    """Undo `guard`."""
    _guarded.discard(inherited)


def leave_if_forked(home: int, error: BaseException | None = None) -> None:
    """End this process at once unless its id is `home`; nothing that it inherited is flushed or closed in order.

    The exit code is that of `sys.exit`, 0 without an error, else 1; such an error is printed, as any uncaught one is.
    """
    if os.getpid() == home:
        return
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        with contextlib.suppress(Exception):  # there may be no stderr
            found = trace(error)
            sys.stderr.write(found.text or f"{found.kind}: {printable(found.message)}\n")
        code = 1
    os._exit(code)


def silence(loop: asyncio.AbstractEventLoop) -> None:
    """In a forked child: drop what its loop would run next, and give it an empty selector in place of the shared one.

    The child would go on with other operations of its parent, and take its wake-ups; uvloop never learns of a thread
    again once it has lost one.
    """
    for ready in (getattr(loop, "_ready", None), *gc.get_referents(loop)):  # uvloop's has no name
        if isinstance(ready, deque):
            _dropped.extend(ready)
            ready.clear()
    if sys.platform != "linux":  # a kqueue is not inherited
        return
    backend = getattr(loop, "_get_backend_id", None)
    selector = getattr(loop, "_selector", None)
    shared = backend() if backend is not None else selector.fileno() if selector is not None else -1
    if shared >= 0:
        with select.epoll() as empty:
            os.dup2(empty.fileno(), shared, inheritable=False)


def disown_signals(owner: type) -> None:
    """Let signals have their usual effect, in every child forked from now on, whose handlers are a class's methods."""
    _owners.append(owner)


def _reset_signals() -> None:
    """Give up handlers that ask the parent's program to end, by an event loop that does not run here.

    With them, `Process.terminate()` and `multiprocessing.Pool` would wait for ever.
    """
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        method = getattr(handler, "func", handler)  # asyncio's runner hands over a partial
        if isinstance(getattr(method, "__self__", None), tuple(_owners)) or method is _ASYNCIO_HANDLER:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _works() -> bool:
    """Whether this process is a worker's, and not a forked child, which must not have the worker's handlers."""
    return bool(_guarded) or len(_owners) > len(_LOOPS)


def _hold_signals() -> None:
    """Let signals wait: the child would lose one that came before it has given its parent's handlers up."""
    if _works():
        _masks[threading.get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)


def _let_signals_through() -> None:
    mask = _masks.pop(threading.get_ident(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _become_a_child() -> None:
    try:
        if _works():
            signal.set_wakeup_fd(-1)  # the parent's: it would take this process's signals for its own
            _reset_signals()
    finally:
        _let_signals_through()
    for inherited in list(_guarded):
        inherited.cut_off()


os.register_at_fork(before=_hold_signals, after_in_parent=_let_signals_through, after_in_child=_become_a_child)
