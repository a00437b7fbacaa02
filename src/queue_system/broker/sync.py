"""Runs commands on blocking connections, from any thread."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from redis.exceptions import RedisError

from queue_system.broker.connection import VERSION_CHECK, SyncConnection
from queue_system.broker.failures import is_of_replica, is_transient, leads_elsewhere, typed
from queue_system.broker.protocol import Command
from queue_system.broker.role import PRIMARY
from queue_system.broker.routes import Route
from queue_system.broker.wire import ErrorReply, SyncWire
from queue_system.clock import SYSTEM_CLOCK
from queue_system.errors import QueueSystemError, ServerError
from queue_system.resilience.backoff import backoff_delay

T = TypeVar("T")

_MAX_IDLE = 32


class SyncTransport:
    """A few connections of our own to the server that a route leads to. Thread-safe, and safe across a fork.

    A command is sent again up to `retries` times; where the server may be replaced, for `patience_s`. No silence is
    borne for longer than `longest_s`. `admission` is asked on the first connection.
    """

    def __init__(
        self,
        route: Route,
        retries: int,
        *,
        patience_s: float = math.inf,
        longest_s: float = math.inf,
        admission: Command[None] = VERSION_CHECK,
    ) -> None:
        self._route = route
        self._admission = admission
        self._retries = retries
        self._patience_s = patience_s
        self._longest_s = longest_s
        self._idle: deque[SyncConnection] = deque()
        self._pid = os.getpid()
        self._checked = False
        weakref.finalize(self, _close_all, self._idle)

    def run(
        self, command: Command[T], *, retries: int | None = None, wait: Callable[[float], object] = time.sleep
    ) -> T:
        """Run a command; on a lost connection send the same again, at once and then with backoff.

        Raises:
            QueueSystemError: typed, after at most `retries` resends. Without a number, those of the transport.
        """
        return self.run_many((command,), retries=retries, wait=wait)[0]

    def run_many(
        self,
        commands: Sequence[Command[T]],
        *,
        retries: int | None = None,
        wait: Callable[[float], object] = time.sleep,
        together: bool = False,
    ) -> list[T]:
        """Run commands in their order, the next being sent while the server works on the one before.

        A script that the server does not know is run after those behind it.

        With `together`, all are run on one connection: when it is lost, all are sent again, not only those without
        an answer.

        Raises:
            QueueSystemError: typed, after at most `retries` resends; those before the failed command were run, those
                after it perhaps.
        """
        started = SYSTEM_CLOCK.monotonic()
        replies: list[Any] = []
        attempt = 0
        lost = False
        while True:
            answers: list[Any] = []
            try:
                self._exchange(commands, replies, answers)
            except (ErrorReply, RedisError, OSError) as error:
                given_up = self._is_over(attempt, retries, started) or _is_too_late(commands, started)
                if not self._route.failed(error) or given_up:
                    told = typed(error, self._route.address)
                    raise _told(told, commands, answers or replies, lost=lost) from error
                lost = lost or not isinstance(error, ErrorReply)
            else:
                for i, command in enumerate(commands):
                    replies[i] = command.parse(replies[i])
                return replies
            if together:
                replies.clear()
            if attempt > 0:
                wait(backoff_delay(attempt - 1, 0.05, self._route.longest_wait_s))
            attempt += 1

    def close(self) -> None:
        """Close the idle connections; the next command opens a fresh one."""
        _close_all(self._idle)

    def _is_over(self, attempt: int, retries: int | None, started: float) -> bool:
        """Return whether enough was tried: a number of times, or for a time where the server may be replaced."""
        if retries is None and self._route.moves:
            return SYSTEM_CLOCK.monotonic() - started >= self._patience_s
        return attempt >= (self._retries if retries is None else retries)

    def _exchange(self, commands: Sequence[Command[Any]], replies: list[Any], answers: list[Any]) -> None:
        """Add the replies that are missing; on an error, fill `answers` with all that came, those behind it, too."""
        connection = self._acquire()
        wire = connection.wire
        failed: int | None = None
        try:
            first = len(replies)
            end = len(commands)
            wire.send(commands[first].request())
            for i in range(first, end):
                if i + 1 < end:
                    wire.send(commands[i + 1].request())
                replies.append(wire.receive())
            if ErrorReply in map(type, replies):
                failed = self._send_texts(wire, commands, replies)
        except BaseException:
            _note(replies, answers)
            # What is still to come on this connection belongs to these commands; nobody else may read it.
            connection.close()
            self.close()
            if (failed := _first_error(replies)) is not None:
                del replies[failed:]  # it was not answered yet
            raise
        if failed is None:
            self._release(connection)
            return
        error = replies[failed]
        errors = [reply for reply in replies if isinstance(reply, ErrorReply)]
        _note(replies, answers)
        del replies[failed:]
        if is_of_replica(error):
            _ask_for_primary(wire, error)
        if any(map(leads_elsewhere, errors)):  # such as READONLY: fresh connections may lead to the new primary
            connection.close()
            self.close()
        elif any(map(is_transient, errors)):
            connection.close()
        else:
            self._release(connection)
        raise error

    def _send_texts(self, wire: SyncWire, commands: Sequence[Command[Any]], replies: list[Any]) -> int | None:
        """Send the scripts that the server did not know by their text; return the first reply that is an error."""
        failed = _first_error(replies)
        while failed is not None and str(replies[failed]).startswith("NOSCRIPT"):
            wire.send(commands[failed].request(by_text=True))
            replies[failed] = wire.receive()
            failed = _first_error(replies)
        return failed

    def _acquire(self) -> SyncConnection:
        if self._pid != os.getpid():
            self._idle.clear()  # the parent goes on using what the sockets lead to
            self._pid = os.getpid()
        endpoint = self._route.check() if self._route.moves else None
        try:
            connection = self._idle.pop()
            while endpoint is not None and connection.endpoint is not endpoint:
                connection.close()
                connection = self._idle.pop()
        except IndexError:
            return self._connect()
        wire = connection.wire
        if wire.home is None or wire.is_at_home:
            return connection
        self._idle.appendleft(connection)
        return self._connect()

    def _connect(self) -> SyncConnection:
        route = self._route
        endpoint = route()
        heed = partial(route.heed, endpoint) if route.moves else None
        connection = endpoint.connect(longest_s=self._longest_s, heed=heed)
        if not self._checked:
            try:
                self._ask_admission(connection.wire)
            except BaseException:
                connection.close()
                raise
        return connection

    def _ask_admission(self, wire: SyncWire) -> None:
        wire.send(self._admission.request())
        reply = wire.receive()
        if isinstance(reply, bytes):  # an ACL may deny INFO
            self._admission.parse(reply)
        self._checked = True

    def _release(self, connection: SyncConnection) -> None:
        if connection.wire.until is not None:
            connection.wire.settle_in()
        if len(self._idle) < _MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()


def _ask_for_primary(wire: SyncWire, error: ErrorReply) -> None:
    """Let the error of a replica tell its primary, as far as the server does."""
    with contextlib.suppress(RedisError, OSError):  # the connection is dropped in any case
        wire.send(PRIMARY.request())
        error.primary = PRIMARY.parse(wire.receive())


def _is_too_late(commands: Sequence[Command[Any]], started: float) -> bool:
    """Return whether one of the commands may do its work a second time, if it is sent again now."""
    within_s = min([command.resend_within_s for command in commands], default=math.inf)
    return SYSTEM_CLOCK.monotonic() - started > within_s


def _note(replies: Sequence[Any], answers: list[Any]) -> None:
    answers[:] = [None if isinstance(reply, ErrorReply) else reply for reply in replies]


def _told(
    error: QueueSystemError, commands: Sequence[Command[Any]], answers: Sequence[Any], *, lost: bool
) -> QueueSystemError:
    """Let an error say which commands were answered, and whether an earlier try may have been carried out."""
    if isinstance(error, ServerError):
        pairs = itertools.zip_longest(commands, answers)
        error.answers = tuple([None if answer is None else command.parse(answer) for command, answer in pairs])
        if lost:
            error.after_lost_answer()
    return error


def _first_error(replies: Sequence[Any]) -> int | None:
    kinds = list(map(type, replies))
    return kinds.index(ErrorReply) if ErrorReply in kinds else None


def _close_all(idle: deque[SyncConnection]) -> None:
    with contextlib.suppress(IndexError):  # another thread may take the last one
        for _ in range(len(idle)):
            connection = idle.pop()
            if connection.wire.is_at_home:
                connection.close()
            else:
                idle.appendleft(connection)
