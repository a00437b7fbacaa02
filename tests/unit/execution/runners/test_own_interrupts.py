"""What is noted of an interrupt changes neither who gets it nor whose it is."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import threading
from typing import Any

import pytest

from queue_system.execution.runners import own_interrupts
from queue_system.execution.runners.own_interrupts import unwatch_interrupts, watch_interrupts
from queue_system.interrupts import sent_by_a_signal


def handler_of_a_program(watch: bool) -> tuple[Any, Any]:
    """Return what handles SIGINT in a program, before and while a worker watches it."""
    found = []

    async def main() -> None:
        found.append(getattr(signal.getsignal(signal.SIGINT), "func", None))
        if watch:
            watch_interrupts()
        else:
            await asyncio.to_thread(watch_interrupts)
        found.append(getattr(signal.getsignal(signal.SIGINT), "func", None))
        unwatch_interrupts()

    asyncio.run(main())
    return found[0], found[1]


@pytest.mark.parametrize("watched", [False, True])
def test_a_second_ctrl_c_of_a_program_is_known_as_a_signal(watched: bool) -> None:
    """Else a log handler or an operation that it meets would be taken for its sender, and it would be lost."""
    known = []

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        if watched:
            watch_interrupts()
        try:
            signal.raise_signal(signal.SIGINT)  # cancels the program
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            known.append(sent_by_a_signal(error))
        unwatch_interrupts()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        task.uncancel()

    asyncio.run(main())
    assert known == [True]


def test_only_a_worker_of_the_main_thread_watches_the_program() -> None:
    """Another one could not tell whose signals those are, and would end the watch of the first."""
    assert threading.current_thread() is threading.main_thread()
    before, watched = handler_of_a_program(watch=True)
    assert watched != before
    before, watched = handler_of_a_program(watch=False)
    assert watched == before


class Handler:
    """A handler that is an object, and one that is a method of it."""

    def __call__(self, *_: object) -> None:
        raise KeyboardInterrupt

    def method(self, *_: object) -> None:
        raise SystemExit


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGALRM])
@pytest.mark.parametrize(
    "handler",
    [Handler(), Handler().method, functools.partial(Handler()), functools.partial(Handler().method)],
    ids=["object", "method", "partial of an object", "partial of a method"],
)
def test_what_a_handler_of_any_kind_raises_is_known_as_a_signal(handler: Any, number: signal.Signals) -> None:
    before = signal.signal(number, handler)
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)) as caught:
            signal.raise_signal(number)
        assert sent_by_a_signal(caught.value)
    finally:
        signal.signal(number, before)
    assert not sent_by_a_signal(SystemExit())


@pytest.mark.parametrize("error", [RecursionError(), MemoryError()])
def test_an_interrupt_of_which_no_note_can_be_made_reaches_its_program(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """As where an operation recurses without end, or has used up the memory."""

    def blame_nobody(number: int, frame: object) -> None:
        raise error

    async def main() -> None:
        watch_interrupts()
        monkeypatch.setattr(own_interrupts, "blame_sender", blame_nobody)
        signal.raise_signal(signal.SIGINT)
        await asyncio.sleep(60)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
