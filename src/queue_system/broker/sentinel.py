"""Asks sentinels which server is the primary. One thread at a time; the connections to them are kept."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import redis

from queue_system.broker.clients import node_pool
from queue_system.broker.connection import Endpoint, NotPrimaryError, SyncConnection
from queue_system.broker.failures import redact, typed
from queue_system.broker.protocol import Argument, plain
from queue_system.broker.wire import ErrorReply, SyncWire
from queue_system.errors import AccessDeniedError, QueueSystemError, ServerError, ServerUnreachableError

_CONNECTED_WITHIN_S: Final = 0.3
_ANSWERED_WITHIN_S: Final = 0.5
_PORT: Final = 26379


@dataclass(eq=False, slots=True)
class _Sentinel:
    """One sentinel, and the connection to it while it answers."""

    endpoint: Endpoint
    name: str
    connection: SyncConnection | None = None

    def close(self) -> None:
        """Drop the connection."""
        if self.connection is not None:
            self.connection.close()
        self.connection = None


@dataclass(frozen=True, slots=True)
class _Word:
    """What a sentinel has answered. `epoch` grows with each failover; -1 if it was not told."""

    host: str
    port: int
    epoch: int


class Sentinels:
    """Follows the primary of one service, as `Follower` does.

    `pool` is that of `Sentinel(...).master_for(...)`; `timeout` the limit, in s, of connections to the primary.
    """

    def __init__(self, pool: Any, timeout: float) -> None:
        self._pool = pool
        self._timeout = timeout
        self.service: Final[str] = _text(pool.service_name)
        """The name under which the sentinels know the primary."""
        self._newest = -1
        self._sentinels = [_of_pool(each.connection_pool, timeout) for each in pool.sentinel_manager.sentinels]
        self._questions = (
            plain(_address, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service),
            plain(_epoch, "SENTINEL", "MASTER", self.service),
        )

    @property
    def address(self) -> str:
        """All sentinels and the service, without credentials: it stays the same whoever is the primary."""
        return sentinel_address(self._pool)

    def ask(self, known: Endpoint | None, *, doubted: bool) -> Endpoint:
        """Return the primary that a sentinel names. The next one is asked if one is silent or, doubted, says the same.

        Where no primary is known, those that were silent are given more time in a second round.

        Raises:
            ServerError: nobody who was asked knows.
        """
        problems: dict[str, QueueSystemError] = {}
        heard = False
        others: Counter[tuple[str, int]] = Counter()
        for patient in (False, True) if known is None else (False,):
            for sentinel in list(self._sentinels):
                try:
                    word = self._ask(sentinel, patient=patient)
                except QueueSystemError as error:
                    problems[sentinel.name] = error
                    self._put_last(sentinel)
                    continue
                heard = True
                others[word.host, word.port] += 1
                found = self._endpoint_of(word, known)
                if found is not known or not doubted:
                    return found
            if heard and known is not None:
                return self._agreed(others, known) or known
        raise self._unknown(problems)

    def run(self, *words: Argument) -> Any:
        """Send a command to the first sentinel that answers, and return the reply.

        Raises:
            ServerError: none answers, or the one that does refuses.
        """
        problems: dict[str, QueueSystemError] = {}
        for sentinel in list(self._sentinels):
            try:
                wire = self._wire_to(sentinel, patient=True)
                wire.send(plain(bytes, *words).request())
                reply = wire.receive()
            except (redis.RedisError, OSError) as error:
                sentinel.close()
                problems[sentinel.name] = typed(error, sentinel.name)
                continue
            if isinstance(reply, ErrorReply):
                raise _not_told(reply, sentinel.name)
            return reply
        raise self._unknown(problems)

    def renew(self) -> None:
        """Note, in a forked child, that open connections are the parent's."""
        for sentinel in self._sentinels:
            sentinel.connection = None

    def close(self) -> None:
        """Drop the connections to sentinels; the next question opens one."""
        for sentinel in self._sentinels:
            sentinel.close()

    def _ask(self, sentinel: _Sentinel, *, patient: bool) -> _Word:
        """Ask one sentinel; raise QueueSystemError, typed, if it does not name a primary."""
        try:
            wire = self._wire_to(sentinel, patient=patient)
            for question in self._questions:
                wire.send(question.request())
            named, told = [wire.receive() for _ in self._questions]
            wire.settle_in()
        except (redis.RedisError, OSError) as error:
            sentinel.close()
            raise typed(error, sentinel.name) from error
        except BaseException:
            sentinel.close()  # replies still to come would be read as those to the next question
            raise
        if isinstance(named, ErrorReply):
            sentinel.close()
            raise _not_told(named, sentinel.name)
        host, port = self._questions[0].parse(named)
        if not host:
            raise ServerError(f"{sentinel.name} knows no service {self.service!r}")
        return _Word(host, port, self._questions[1].parse(told))

    def _wire_to(self, sentinel: _Sentinel, *, patient: bool) -> SyncWire:
        if sentinel.connection is None:
            limit_s = self._timeout if patient else _CONNECTED_WITHIN_S
            sentinel.connection = sentinel.endpoint.connect(within_s=limit_s)
        return sentinel.connection.wire

    def _endpoint_of(self, word: _Word, known: Endpoint | None) -> Endpoint:
        """Return where a word leads: to the known server if it is the same, or if the word is older than that."""
        if known is not None:
            settings = known.pool.connection_kwargs
            same = (settings["host"], settings["port"]) == (word.host, word.port)
            if same or -1 < word.epoch < self._newest:
                self._newest = max(self._newest, word.epoch)
                return known
        self._newest = max(self._newest, word.epoch)
        return Endpoint(node_pool(self._pool, word.host, word.port), self._timeout, service=self.service)

    def _agreed(self, named: Counter[tuple[str, int]], known: Endpoint) -> Endpoint | None:
        """Return the server that most sentinels name, whatever their epochs, if the known one says that it is none."""
        ((host, port), count), *_ = named.most_common(1)
        settings = known.pool.connection_kwargs
        if 2 * count <= len(self._sentinels) or (settings["host"], settings["port"]) == (host, port):
            return None
        try:
            known.connect(within_s=_CONNECTED_WITHIN_S).close()
        except NotPrimaryError:
            self._newest = -1  # it was that of a switch that did not last
        except (redis.RedisError, OSError):
            return None
        else:
            return None
        return Endpoint(node_pool(self._pool, host, port), self._timeout, service=self.service)

    def _put_last(self, sentinel: _Sentinel) -> None:
        self._sentinels.remove(sentinel)
        self._sentinels.append(sentinel)

    def _unknown(self, problems: dict[str, QueueSystemError]) -> ServerError:
        told = "; ".join(str(error) for error in problems.values()) or "the URL names none"
        text = f"no sentinel names the primary of {redact(self.service)!r}: {told}"
        kinds = {type(error) for error in problems.values()}
        if ServerUnreachableError in kinds or not kinds:
            return ServerUnreachableError(text)
        if AccessDeniedError in kinds:
            return AccessDeniedError(f"{text}; give sentinel_username and sentinel_password")
        return ServerError(f"{text}; the command SENTINEL MASTERS lists the services of a sentinel")


def sentinel_address(pool: Any) -> str:
    """Return the sentinels, the service and the database of a client of sentinels, without credentials."""
    hosts = [_place(each.connection_pool) for each in pool.sentinel_manager.sentinels]
    database = pool.connection_kwargs.get("db", 0) or 0
    return f"redis+sentinel://{','.join(hosts)}/{redact(_text(pool.service_name))}/{database}"


def _of_pool(pool: Any, timeout: float) -> _Sentinel:
    """Take a sentinel's settings from a client's pool, with the limits that asking it has."""
    limited = redis.ConnectionPool(pool.connection_class, **pool.connection_kwargs)
    limited.connection_kwargs |= {"db": 0, "socket_timeout": _ANSWERED_WITHIN_S, "socket_connect_timeout": None}
    return _Sentinel(Endpoint(limited, timeout), f"sentinel {_place(pool)}")


def _place(pool: Any) -> str:
    host = str(pool.connection_kwargs.get("host", "localhost"))
    return f"{f'[{host}]' if ':' in host else host}:{pool.connection_kwargs.get('port', _PORT)}"


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _address(reply: Any) -> tuple[str, int]:
    """Read the address; ("", 0) if the sentinel knows no such service."""
    with contextlib.suppress(TypeError, ValueError, AttributeError):
        host, port = reply
        return host.decode(), int(port)
    return "", 0


def _epoch(reply: Any) -> int:
    """Read how many failovers there have been; -1 where an ACL denies the command."""
    with contextlib.suppress(TypeError, ValueError, AttributeError):
        return int(dict(zip(reply[::2], reply[1::2], strict=True))[b"config-epoch"])
    return -1


def _not_told(error: ErrorReply, name: str) -> QueueSystemError:
    if str(error).startswith("ERR unknown command"):
        return ServerError(f"{name} is no sentinel, but a server: sentinels listen on port 26379 by default")
    if str(error).startswith("ERR No such master"):
        return ServerError(f"{name} knows no such service")
    return typed(error, name)
