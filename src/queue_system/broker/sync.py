"""Runs commands on blocking connections, from any thread. Never decides what a reply means."""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from redis.exceptions import RedisError

from queue_system.broker.commands import server_info
from queue_system.broker.connection import Endpoint, SyncConnection, check_version
from queue_system.broker.failures import is_transient, typed
from queue_system.broker.protocol import Command
from queue_system.broker.wire import ErrorReply
from queue_system.resilience.backoff import backoff_delay

T = TypeVar("T")

_MAX_IDLE = 32
_SERVER_INFO = server_info()


class SyncTransport:
    """A few connections of our own to one server. Thread-safe, and safe across a fork."""

    def __init__(self, endpoint: Callable[[], Endpoint], retries: int) -> None:
        self._endpoint = endpoint
        self._retries = retries
        self._idle: deque[SyncConnection] = deque()
        self._pid = os.getpid()
        self._checked = False
        weakref.finalize(self, _close_all, self._idle)

    def run(
        self, command: Command[T], *, retries: int | None = None, wait: Callable[[float], object] = time.sleep
    ) -> T:
        """Run a command; on a lost connection send the same again, at once and then with backoff.

        Raises:
            QueueSystemError: typed, after at most `retries` resends.
        """
        left = self._retries if retries is None else retries
        attempt = 0
        while True:
            try:
                return command.parse(self._exchange(command))
            except (ErrorReply, RedisError, OSError) as error:
                if attempt >= left or not is_transient(error):
                    raise typed(error, self._endpoint().address) from error
            if attempt > 0:
                wait(backoff_delay(attempt - 1, 0.05, 2.0))
            attempt += 1

    def close(self) -> None:
        """Close the idle connections; the next command opens a fresh one."""
        _close_all(self._idle)

    def _exchange(self, command: Command[Any]) -> Any:
        connection = self._acquire()
        try:
            reply = connection.wire.exchange(command.request())
            if isinstance(reply, ErrorReply) and str(reply).startswith("NOSCRIPT"):
                reply = connection.wire.exchange(command.request(by_text=True))
        except BaseException:
            # What is still to come on this connection belongs to this command; nobody else may read it.
            connection.close()
            self.close()
            raise
        if isinstance(reply, ErrorReply):
            if is_transient(reply):
                connection.close()  # such as READONLY: a fresh connection may lead to the new primary
            else:
                self._release(connection)
            raise reply
        self._release(connection)
        return reply

    def _acquire(self) -> SyncConnection:
        if self._pid != os.getpid():
            self._idle.clear()  # the parent goes on using what the sockets lead to
            self._pid = os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect()

    def _connect(self) -> SyncConnection:
        connection = self._endpoint().connect()
        if not self._checked:
            reply = connection.wire.exchange(_SERVER_INFO.request())
            if isinstance(reply, bytes):  # an ACL may deny INFO
                check_version(_SERVER_INFO.parse(reply))
            self._checked = True
        return connection

    def _release(self, connection: SyncConnection) -> None:
        if len(self._idle) < _MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()


def _close_all(idle: deque[SyncConnection]) -> None:
    with contextlib.suppress(IndexError):  # another thread may take the last one
        while True:
            idle.pop().close()
