"""Where the server is and how to connect to it, for both transports. Opens nothing by itself.

A user's client is only a source of settings: the transports open connections of their own, redis-py's retries off.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import redis
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry

from queue_system.broker.failures import redact
from queue_system.broker.wire import AioWire, SyncWire
from queue_system.errors import InvalidInputError, UnsupportedServerError
from queue_system.resilience.threads import in_daemon_thread

OLDEST_SERVER = (6, 2)
SCHEMES = ("redis", "rediss", "unix", "valkey", "valkeys", "embedded")
_OPTIONS = frozenset({
    "db", "username", "password", "client_name", "socket_timeout", "socket_connect_timeout", "socket_keepalive",
    "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname",
})  # fmt: skip
_DROPPED = frozenset({
    "retry", "retry_on_timeout", "retry_on_error", "decode_responses", "encoding", "encoding_errors", "parser_class",
    "health_check_interval", "protocol", "connection_pool", "event_dispatcher", "command_packer", "redis_connect_func",
    "himport_registry", "oss_cluster_maint_notifications_handler", "legacy_responses",
})  # fmt: skip


def check_url(url: object) -> str:
    """Return a server's URL in redis-py's own schemes; raise InvalidInputError for a foreign scheme or option."""
    if not isinstance(url, str):
        raise InvalidInputError("redis_url", f"a {type(url).__name__} is no URL; use 'redis://host:6379/0'")
    try:
        parts = urlsplit(url)
        options = parse_qsl(parts.query, keep_blank_values=True)
        _ = parts.port
    except ValueError:
        raise InvalidInputError("redis_url", "it cannot be parsed; use 'redis://host:6379/0'") from None
    if parts.scheme not in SCHEMES:
        raise InvalidInputError("redis_url", f"scheme {parts.scheme!r} is unknown; use one of {', '.join(SCHEMES)}")
    for name, value in options:
        if name not in _OPTIONS:
            raise InvalidInputError(
                "redis_url", f"option {name!r} is not known; known are {', '.join(sorted(_OPTIONS))}"
            )
        if name == "ssl_cert_reqs" and value.lower() == "none":
            raise InvalidInputError("redis_url", "ssl_cert_reqs=none would switch certificate checks off")
    if parts.scheme == "embedded":
        return url
    url = url.replace("valkeys://", "rediss://", 1).replace("valkey://", "redis://", 1)
    database = parts.path.strip("/")
    try:
        redis.ConnectionPool.from_url(url)
        if parts.scheme != "unix" and database:
            int(database)
    except (ValueError, TypeError) as error:
        problem = redact(str(error))
        raise InvalidInputError("redis_url", f"it cannot be used: {problem}; use 'redis://host:6379/0'") from None
    return url


@dataclass(frozen=True, slots=True)
class SyncConnection:
    """A blocking connection that redis-py opened, and the wire on its socket."""

    opened: AbstractConnection
    wire: SyncWire

    def close(self) -> None:
        """Drop the connection."""
        self.opened.disconnect()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server and the settings to connect to it."""

    pool: redis.ConnectionPool
    timeout: float
    prepare: Callable[[], object] | None = None
    """Called before each connection: brings an embedded server back."""

    @property
    def address(self) -> str:
        """The server's address for messages, without credentials."""
        kwargs = self.pool.connection_kwargs
        if path := kwargs.get("path"):
            return f"unix://{path}"
        if service := getattr(self.pool, "service_name", None):
            return f"sentinel service {redact(str(service))}"
        return f"redis://{kwargs.get('host', 'localhost')}:{kwargs.get('port', 6379)}/{kwargs.get('db', 0) or 0}"

    def connect(self) -> SyncConnection:
        """Open a blocking connection; raises what redis-py raises."""
        if self.prepare is not None:
            self.prepare()
        kind = self.pool.connection_class
        settings = self._settings(kind)
        if hasattr(self.pool, "service_name"):
            settings["connection_pool"] = self.pool
        connection: AbstractConnection = kind(**settings, retry=Retry(NoBackoff(), 0))
        connection.connect()
        connected: Any = connection._sock  # noqa: SLF001 - redis-py gives no other way
        return SyncConnection(connection, SyncWire(connected))

    async def connect_aio(self) -> AioWire:
        """Open an asyncio connection with the same settings; raises what redis-py raises."""
        connection = await in_daemon_thread(self._aio_connection) if self._blocks else self._aio_connection()
        await connection.connect()
        # From here on the wire owns the transport; redis-py must not close or miss it.
        writer, connection._writer, connection._reader = connection._writer, None, None  # noqa: SLF001
        return AioWire(writer)

    @property
    def _blocks(self) -> bool:
        return self.prepare is not None or hasattr(self.pool, "service_name")

    def _aio_connection(self) -> Any:
        if self.prepare is not None:
            self.prepare()
        pool: Any = self.pool
        sync_kind = pool.connection_class
        if issubclass(sync_kind, UnixDomainSocketConnection):
            kind: type[Any] = aioredis.UnixDomainSocketConnection
        elif issubclass(sync_kind, SSLConnection):
            kind = aioredis.SSLConnection
        else:
            kind = aioredis.Connection
        settings = self._settings(kind)
        if hasattr(self.pool, "service_name"):
            settings["host"], settings["port"] = pool.get_master_address()
        settings["socket_timeout"] = None  # the transport keeps the time, since it knows what may block
        return kind(**settings, retry=AsyncRetry(NoBackoff(), 0))

    def _settings(self, kind: type) -> dict[str, Any]:
        accepted = _parameters(kind)
        given = {k: v for k, v in self.pool.connection_kwargs.items() if k in accepted and k not in _DROPPED}
        given["socket_timeout"] = given.get("socket_timeout") or self.timeout
        given["socket_connect_timeout"] = given.get("socket_connect_timeout") or self.timeout
        given["protocol"] = 2
        return given


def _parameters(kind: type) -> set[str]:
    names: set[str] = set()
    for base in kind.__mro__:
        if (initializer := vars(base).get("__init__")) is not None:
            names.update(inspect.signature(initializer).parameters)
    return names


def make_client(url: str, timeout: float) -> redis.Redis:
    """Build a redis-py client for a checked URL; it connects on first use."""
    return redis.Redis.from_url(
        url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=Retry(NoBackoff(), 0), protocol=2
    )


def check_version(info: Mapping[str, str]) -> None:
    """Raise UnsupportedServerError when the server's own description names a version before Redis 6.2."""
    version = info.get("redis_version", "")
    numbers = tuple(int(n) for n in version.split(".")[:2] if n.isdigit())
    if numbers and numbers < OLDEST_SERVER:
        raise UnsupportedServerError(
            f"the server is version {version}; Redis 6.2 or Valkey 7.2 is the oldest supported"
        )
