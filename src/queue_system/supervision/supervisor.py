"""Keeps a number of worker processes alive, and lets them leave in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

from queue_system.clock import SYSTEM_CLOCK
from queue_system.metrics import StructuredLogger
from queue_system.supervision.observing import answering, share_counts
from queue_system.supervision.places import NEVER, Place
from queue_system.supervision.reload import SourceWatch
from queue_system.supervision.serving import DONE, FAILED, RECYCLED, REFUSED
from queue_system.supervision.settings import WorkerSettings
from queue_system.supervision.signals import LEAVE, Handler, handling, take_signals
from queue_system.supervision.systemd import Notifier
from queue_system.supervision.targets import complain, load_worker

_MARGIN_S = 10.0
"""How much longer than the grace time a child may take: it settles and signs off, maybe at a slow server."""

_LONGEST_PAUSE_S: Final = 1.0
_IN_ORDER: Final = {DONE, RECYCLED, -signal.SIGTERM}
"""How children end that were asked to leave; the signal itself ends one that has not begun."""

_SIGNALS: Final = (*LEAVE, signal.SIGCHLD)
_CHANGED: Final = 0
"""What stands among the numbers of signals when a source file has changed."""


class Supervisor:
    """The parent of a worker's processes. Signals, children's sockets and the next date wake it."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._places = [Place(settings) for _ in range(settings.processes)]
        self._log = StructuredLogger.wrap()
        self._notifier = Notifier(os.environ)
        self._selector = selectors.DefaultSelector()
        self._happened: deque[int] = deque()
        self._wake, self._woken = socket.socketpair()
        self._to_renew: deque[Place] = deque()
        self._leaving = False
        self._code = DONE
        self._told = ""
        self._handler: Handler = self._note
        self._forget: Callable[[int], None] = lambda _pid: None

    def run(self) -> int:
        """Keep the children alive until a signal, or the end of their work, and return the exit code.

        Raises:
            InvalidInputError: `http` or `reload` is not possible, or the target cannot be loaded for `http`.
        """
        with self._selector, self._wake, self._woken, self._signals(), self._source_watch(), self._observed():
            try:
                return self._supervise()
            finally:
                self._kill_all()

    def _supervise(self) -> int:
        while True:
            self._start_children()
            for key, _ in self._selector.select(self._pause_s()):
                self._take_in(key)
            while self._happened:
                number = self._happened.popleft()
                if number in LEAVE[:2] and self._leaving:
                    return 128 + number
                self._react(number)
            for place in self._places:
                self._look_after(place)
            self._renew_next()
            if self._all_ended():
                return self._code
            if all(place.ready for place in self._places):
                self._notifier.ready()
            self._notifier.alive()

    def _start_children(self) -> None:
        for place in self._places:
            if place.child is None and not self._leaving and SYSTEM_CLOCK.monotonic() >= place.start_at:
                try:
                    self._selector.register(place.start().channel, selectors.EVENT_READ, place)
                except OSError as error:
                    self._log.error("no worker process can be started", error=str(error), delay_s=place.back_off())

    def _pause_s(self) -> float:
        dates = [place.start_at if place.child is None else place.kill_at for place in self._places]
        pause_s = min(self._notifier.interval_s / 2, _LONGEST_PAUSE_S, min(dates) - SYSTEM_CLOCK.monotonic())
        return max(pause_s, 0.0)

    def _take_in(self, key: selectors.SelectorKey) -> None:
        if isinstance(key.data, Place):
            if not key.data.listen():
                self._selector.unregister(key.fileobj)
        else:
            self._woken.recv(4096)

    def _react(self, number: int) -> None:
        if number in LEAVE[:2]:
            self._log.info("workers drain and leave", signal=signal.Signals(number).name, grace_s=self._settings.grace)
            self._leave(DONE)
        elif number == signal.SIGHUP:
            self._log.info("processes are replaced one after the other")
            self._to_renew = deque(self._places)
        elif number == _CHANGED:
            self._log.info("source changed: workers restart")
            self._told = ""
            for place in self._places:
                place.start_at = 0.0
                self._drain(place)

    def _leave(self, code: int) -> None:
        self._leaving = True
        self._code = code
        self._notifier.stopping()
        for place in self._places:
            self._drain(place)

    def _drain(self, place: Place) -> None:
        place.ask_to_leave(self._settings.grace + _MARGIN_S)

    def _renew_next(self) -> None:
        """Replace the next process in turn as soon as the last one's successor takes operations."""
        while self._to_renew and not self._leaving:
            place = self._to_renew[0]
            if not place.renewing:
                place.renewing = True
                self._drain(place)
            if place.leaving or not place.ready:
                return
            place.renewing = False
            self._to_renew.popleft()

    def _look_after(self, place: Place) -> None:
        pid = place.pid
        if place.overdue():
            self._log.warning("worker process did not leave in time and is killed", pid=pid)
            self._code = FAILED if self._leaving else self._code
        asked = place.leaving
        child = place.child
        code = place.ended()
        if code is None or child is None:
            return
        with contextlib.suppress(KeyError, ValueError):  # its channel has reported the end before
            self._selector.unregister(child.channel)
        self._forget(pid)
        if self._leaving:
            self._code = self._code or (FAILED if code not in _IN_ORDER else DONE)
        elif code == REFUSED:
            self._refuse(place)
        elif code == DONE and self._settings.burst and not asked:
            place.start_at = NEVER
        elif code == RECYCLED or asked:
            place.start_at = 0.0
            self._log.info("worker process left and is replaced", pid=pid, lived_s=round(place.lived_s(), 1))
        else:
            self._replace_dead(place, pid, code)

    def _replace_dead(self, place: Place, pid: int, code: int) -> None:
        lived_s = round(place.lived_s(), 1)
        how = {"exit_code": code} if code >= 0 else {"signal": signal.Signals(-code).name}
        problem = {"error": place.problem} if place.problem else {}
        delay_s = place.back_off()
        self._log.error(
            "worker process died: another follows", pid=pid, lived_s=lived_s, delay_s=delay_s, **how, **problem
        )

    def _refuse(self, place: Place) -> None:
        """What a child cannot run, none can; only a change of the source may help."""
        place.start_at = NEVER
        if place.problem != self._told:
            self._told = place.problem
            complain(place.problem)
        if not self._settings.reload:
            self._leave(REFUSED)

    def _all_ended(self) -> bool:
        if any(place.child is not None for place in self._places):
            return False
        over = all(place.start_at == NEVER for place in self._places)
        return self._leaving or (over and not self._settings.reload)

    def _kill_all(self) -> None:
        for place in self._places:
            place.kill()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._happened.append(number)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Let signals wake the supervisor, whichever instruction they come at."""
        self._wake.settimeout(0)
        self._woken.settimeout(0)
        self._selector.register(self._woken, selectors.EVENT_READ)

        before = signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        try:
            with handling(self._handler, *_SIGNALS):
                yield
        finally:
            signal.set_wakeup_fd(before)

    @contextlib.contextmanager
    def _observed(self) -> Iterator[None]:
        address = self._settings.http
        allowed = self._settings.allowed_hosts
        if address is None:
            yield
            return
        self._forget = share_counts()
        config = asyncio.run(load_worker(self._settings)).config
        take_signals(self._handler, *_SIGNALS)  # the target may have set handlers of its own
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        with answering(config, lambda: [place.health() for place in self._places], address, allowed):
            yield

    @contextlib.contextmanager
    def _source_watch(self) -> Iterator[None]:
        def changed() -> None:
            self._happened.append(_CHANGED)
            with contextlib.suppress(OSError):
                self._wake.send(b"\0")

        with SourceWatch(changed) if self._settings.reload else contextlib.nullcontext():
            yield
