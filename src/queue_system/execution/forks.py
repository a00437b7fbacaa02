"""Ends a forked child of a worker's process where it would do its parent's part. Never touches what the parent uses.

A processor may fork. Child and parent share the event loop's selector and wake-up socket, and the worker's connections:
a child that came back to the event loop would take replies and signals from its parent.
"""

from __future__ import annotations

import asyncio
import os
import select
import sys
import traceback
import weakref
from typing import Protocol

__all__ = ["Inherited", "blind", "guard", "leave_if_forked", "release"]


class Inherited(Protocol):
    """What a child must give up."""

    def cut_off(self) -> None:
        """Learn that this process is a child that was forked just now."""


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
        traceback.print_exception(error)
        code = 1
    os._exit(code)


def blind(loop: asyncio.AbstractEventLoop) -> None:
    """In a forked child: put an empty selector in the place of the shared one, so that its loop sees no event at all.

    It would take wake-ups from its parent; uvloop never hears of a thread again once it has lost one.
    """
    if sys.platform != "linux":  # a kqueue is not inherited
        return
    backend, selector = getattr(loop, "_get_backend_id", None), getattr(loop, "_selector", None)
    shared = backend() if backend is not None else selector.fileno() if selector is not None else -1
    if shared >= 0:
        with select.epoll() as empty:
            os.dup2(empty.fileno(), shared, inheritable=False)


def _cut_off_all() -> None:
    for inherited in list(_guarded):
        inherited.cut_off()


os.register_at_fork(after_in_child=_cut_off_all)
