"""Runs commands on blocking connections, from any thread. Never decides what a reply means."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from redis.connection import AbstractConnection
from redis.exceptions import NoPermissionError, NoScriptError, RedisError

from queue_system.broker.commands import server_info
from queue_system.broker.connection import Endpoint, check_version
from queue_system.broker.failures import is_transient, typed
from queue_system.broker.protocol import Command
from queue_system.errors import QueueSystemError
from queue_system.resilience.backoff import backoff_delay

T = TypeVar("T")

_MAX_IDLE = 32
_SERVER_INFO = server_info()


class SyncTransport:
    """A few connections of our own to one server. Thread-safe, and safe across a fork."""

    def __init__(self, endpoint: Callable[[], Endpoint], retries: int) -> None:
        self._endpoint = endpoint
        self._retries = retries
        self._idle: deque[AbstractConnection] = deque()
        self._pid = os.getpid()
        self._checked = False

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
            except (RedisError, OSError) as error:
                if attempt >= left or not is_transient(error):
                    raise self._typed(error) from error
            if attempt > 0:
                wait(backoff_delay(attempt - 1, 0.05, 2.0))
            attempt += 1

    def close(self) -> None:
        """Close the idle connections; the next command opens a fresh one."""
        while self._idle:
            self._idle.pop().disconnect()

    def _exchange(self, command: Command[T]) -> object:
        connection = self._acquire()
        try:
            connection.send_packed_command((command.request(),), check_health=False)
            try:
                reply = connection.read_response(disable_decoding=True)
            except NoScriptError:
                connection.send_packed_command((command.request(by_text=True),), check_health=False)
                reply = connection.read_response(disable_decoding=True)
        except BaseException as error:
            # What is still to come on this connection belongs to this command; nobody else may read it.
            if isinstance(error, RedisError) and not is_transient(error) and not isinstance(error, NoScriptError):
                self._release(connection)
            else:
                connection.disconnect()
                self.close()
            raise
        self._release(connection)
        return reply

    def _acquire(self) -> AbstractConnection:
        if self._pid != os.getpid():
            self._idle = deque()  # the parent's sockets are not ours to use or to close
            self._pid = os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            return self._connect()

    def _connect(self) -> AbstractConnection:
        connection = self._endpoint().connect()
        if not self._checked:
            connection.send_packed_command((_SERVER_INFO.request(),), check_health=False)
            with contextlib.suppress(NoPermissionError):
                check_version(_SERVER_INFO.parse(connection.read_response(disable_decoding=True)))
            self._checked = True
        return connection

    def _release(self, connection: AbstractConnection) -> None:
        if len(self._idle) < _MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.disconnect()

    def _typed(self, error: BaseException) -> QueueSystemError:
        return typed(error, self._endpoint().address)
