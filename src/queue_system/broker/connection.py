"""Where the server is and how to connect to it, for both transports. Opens nothing by itself.

A user's client is only a source of settings: the transports open connections of their own, redis-py's retries off.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import redis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry

from queue_system.broker.clients import AIO_KINDS, DROPPED, KINDS, parameters
from queue_system.broker.connecting import (
    UnixConnection,
    look_up,
    numeric_addresses,
    reach,
    remaining_s,
    within,
)
from queue_system.broker.failures import redact
from queue_system.broker.loop_end import cancelled_before_close
from queue_system.broker.protocol import plain
from queue_system.broker.replies import parse_info
from queue_system.broker.role import PRIMARY
from queue_system.broker.urls import SECONDS
from queue_system.broker.wire import AioWire, SyncWire
from queue_system.clock import SYSTEM_CLOCK
from queue_system.errors import UnsupportedServerError
from queue_system.resilience.threads import in_daemon_thread
from queue_system.validation import shown

OLDEST_SERVER = (6, 2)


@dataclass(frozen=True, slots=True)
class SyncConnection:
    """A blocking connection that redis-py opened, and the wire on its socket."""

    opened: AbstractConnection
    wire: SyncWire
    endpoint: Endpoint
    """Where it leads."""

    def close(self) -> None:
        """Drop the connection."""
        self.opened.disconnect()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server and the settings to connect to it."""

    pool: redis.ConnectionPool = field(repr=False)  # some releases of redis-py show the password in it
    timeout: float
    prepare: Callable[[], object] | None = None
    """Called before each connection: brings an embedded server back."""
    service: str = ""
    """The name under which sentinels have named it; then it must be a primary, or no connection is made."""

    @property
    def address(self) -> str:
        """The server's address for messages, without credentials."""
        kwargs = self.pool.connection_kwargs
        if path := kwargs.get("path"):
            return f"unix://{path}"
        url = f"redis://{self.place}/{kwargs.get('db', 0) or 0}"
        return f"{url} (sentinel service {redact(self.service)})" if self.service else url

    @property
    def place(self) -> str:
        """The host, an IPv6 address in brackets, and the port."""
        kwargs = self.pool.connection_kwargs
        host = str(kwargs.get("host", "localhost"))
        return f"{f'[{host}]' if ':' in host else host}:{kwargs.get('port', 6379)}"

    @property
    def is_local(self) -> bool:
        """Whether the server is reached by a Unix socket."""
        return bool(self.pool.connection_kwargs.get("path"))

    @property
    def is_authenticated(self) -> bool:
        """Whether the settings hold credentials: a password, a provider of one, or a certificate of the client's."""
        credentials = ("password", "credential_provider", "ssl_certfile")
        return any(self.pool.connection_kwargs.get(name) for name in credentials)

    @property
    def read_limit_s(self) -> float:
        """After how long a silence, in s, each transport's connection gives up; what blocks must end before."""
        own = self.pool.connection_kwargs.get("socket_timeout")
        return min(own or self.timeout, self.timeout)

    def connect(
        self, *, within_s: float = math.inf, longest_s: float = math.inf, heed: Callable[[], object] | None = None
    ) -> SyncConnection:
        """Open a blocking connection; raises what redis-py raises, an error of the user's code as ConnectionError.

        Look-ups, TCP, TLS and log-in together have one limit, of `within_s` at most, and so has all that comes before
        `settle_in`. No silence is borne for longer than `longest_s`. `heed` is called twice a second while the server
        is waited for, now and later; it may raise OSError.
        """
        if self.prepare is not None:
            self.prepare()
        started = SYSTEM_CLOCK.monotonic()
        kind = KINDS[self.pool.connection_class]
        settings = self._settings(kind, longest_s)
        limit_s = min(settings["socket_connect_timeout"], within_s)
        read_limit_s = settings["socket_timeout"]
        try:
            connection: Any = self._unconnected(kind, settings, started + limit_s)
            connection.heed = heed
        except (redis.RedisError, OSError):
            raise
        except Exception as error:
            raise _of_the_application(error) from error
        try:
            connection.connect()
        except Exception:
            connection.disconnect()  # redis-py does so after errors of its own only
            raise
        hurried = connection._sock  # noqa: SLF001 - redis-py gives no other way
        connection._sock = hurried.let_go()  # noqa: SLF001
        until = started + max(limit_s, read_limit_s)
        wire = SyncWire(hurried.plain, read_limit_s, until, heed)
        if self.service:
            try:
                wire.send(PRIMARY.request())
                _check_role(wire.receive())
            except BaseException:
                connection.disconnect()
                raise
        return SyncConnection(connection, wire, self)

    def _unconnected(self, kind: type, settings: dict[str, Any], deadline: float) -> Any:
        """Ask a provider of credentials and a resolver, where there is something to ask of them."""
        if (provider := settings.pop("credential_provider", None)) is not None:
            *user, settings["password"] = within(remaining_s(deadline), provider.get_credentials)
            settings["username"] = user[0] if user else None
        connection: Any = kind(**settings, retry=Retry(NoBackoff(), 0))
        connection.deadline = deadline
        if kind is not UnixConnection:
            host = connection.host
            port = connection.port
            connection.addresses = numeric_addresses(host, port) or within(remaining_s(deadline), look_up, host, port)
        return connection

    async def connect_aio(self, *, whole: bool = False) -> AioWire:
        """Open an asyncio connection with the same settings; raises what `connect` raises. `whole` is the wire's."""
        blocks = self.prepare is not None
        connection = await in_daemon_thread(self._aio_connection) if blocks else self._aio_connection()
        try:
            with cancelled_before_close():
                await _resolve(connection)
                await connection.connect()
        except BaseException as error:
            _drop(connection)
            if isinstance(error, redis.RedisError | OSError) or not isinstance(error, Exception):
                raise
            raise _of_the_application(error) from error
        wire = AioWire(_take_writer(connection), whole=whole)
        if self.service:
            try:
                (role,) = await wire.send(PRIMARY.request(), 1, self.timeout)
                _check_role(role)
            except BaseException:
                wire.close()
                raise
        return wire

    def _aio_connection(self) -> Any:
        if self.prepare is not None:
            self.prepare()
        kind = AIO_KINDS[KINDS[self.pool.connection_class]]
        settings = self._settings(kind)
        settings["socket_timeout"] = None  # the transport keeps the time, since it knows what may block
        return kind(**settings, retry=AsyncRetry(NoBackoff(), 0))

    def _settings(self, kind: type, longest_s: float = math.inf) -> dict[str, Any]:
        accepted = parameters(kind)
        given = {k: v for k, v in self.pool.connection_kwargs.items() if k in accepted and k not in DROPPED}
        for name in SECONDS:
            given[name] = min(given.get(name) or self.timeout, longest_s)
        given["protocol"] = 2
        return given


def _take_writer(connection: Any) -> Any:
    """Take the stream from redis-py, which must neither close nor miss it from now on; None if there is none."""
    writer = connection._writer  # noqa: SLF001 - redis-py gives no other way
    connection._writer = connection._reader = None  # noqa: SLF001
    return writer


def _drop(connection: Any) -> None:
    """Drop at once what redis-py has opened so far, which it leaves to the garbage collector when it is cancelled."""
    writer = _take_writer(connection)
    if writer is not None:
        with contextlib.suppress(RuntimeError):  # the event loop was closed meanwhile
            writer.transport.abort()


async def _resolve(connection: Any) -> None:
    """Look the host up: asyncio would do so in a thread that, hung, delays the end of the loop and the process."""
    if isinstance(connection, aioredis.UnixDomainSocketConnection):
        return
    host = connection.host
    if numeric_addresses(host, connection.port):
        return
    arguments = dict(connection._connection_arguments())  # noqa: SLF001 - redis-py gives no other way
    connected = await reach(await in_daemon_thread(look_up, host, connection.port))
    del arguments["host"], arguments["port"]
    arguments |= {"sock": connected} | ({"server_hostname": host} if "ssl" in arguments else {})
    connection._connection_arguments = lambda: arguments  # noqa: SLF001


def _of_the_application(error: Exception) -> redis.ConnectionError:
    """Return what stands for an error of the user's code, such as a credential provider: trying again may help."""
    return redis.ConnectionError(f"the application's own code failed while connecting: {_told(error)}")


def _told(error: Exception) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - code of the application
        text = ""
    return f"{type(error).__name__}: {shown(text)}" if text else type(error).__name__


def check_version(info: Mapping[str, str]) -> None:
    """Raise UnsupportedServerError when the server's own description names a version before Redis 6.2."""
    version = info.get("redis_version", "")
    numbers = tuple(int(n) for n in version.split(".")[:2] if n.isdigit())
    if numbers and numbers < OLDEST_SERVER:
        raise UnsupportedServerError(
            f"the server is version {version}; Redis 6.2 or Valkey 7.2 is the oldest supported"
        )


class NotPrimaryError(redis.ConnectionError):
    """A server that sentinels name as the primary says that it is a replica."""


def _check_info(reply: bytes) -> None:
    check_version(parse_info(reply))


VERSION_CHECK: Final = plain(_check_info, "INFO", "server")
"""What each transport asks on its first connection; an ACL may deny it. Reading the reply raises as `check_version`."""


def _check_role(reply: Any) -> None:
    """Raise redis-py's ConnectionError if a server says that it is a replica; an ACL may deny INFO."""
    if primary := PRIMARY.parse(reply):
        raise NotPrimaryError(f"it is a replica of {primary}, though sentinels name it as the primary")
