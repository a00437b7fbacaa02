"""Reads from an application's client how its server is reached. Connects to nothing, and changes no client.

Clients of redis-py, blocking or not, and of valkey-py, which has the same classes under its own names.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final, Protocol

import redis
import redis.asyncio as aioredis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection, SentinelManagedSSLConnection

from queue_system.broker.connecting import TcpConnection, TlsConnection, UnixConnection
from queue_system.validation import refused

DROPPED: Final = frozenset({
    "retry", "retry_on_timeout", "retry_on_error", "decode_responses", "encoding", "encoding_errors", "parser_class",
    "health_check_interval", "protocol", "connection_pool", "event_dispatcher", "command_packer", "redis_connect_func",
    "himport_registry", "oss_cluster_maint_notifications_handler", "legacy_responses",
})  # fmt: skip
"""Settings of a client that our own connections do without."""
KINDS: Final[Mapping[type, type]] = {
    Connection: TcpConnection,
    SentinelManagedConnection: TcpConnection,
    SSLConnection: TlsConnection,
    SentinelManagedSSLConnection: TlsConnection,
    UnixDomainSocketConnection: UnixConnection,
}
"""The connections of redis-py that we open ourselves, blocking and on an event loop, from a client's settings."""
AIO_KINDS: Final[Mapping[type, type[Any]]] = {
    TcpConnection: aioredis.Connection,
    TlsConnection: aioredis.SSLConnection,
    UnixConnection: aioredis.UnixDomainSocketConnection,
}
_SAME_KINDS: Final[Mapping[str, type]] = {
    f"{module}.{kind.__name__}": kind
    for kinds, modules in (
        ((Connection, SSLConnection, UnixDomainSocketConnection), ("connection", "asyncio.connection")),
        ((SentinelManagedConnection, SentinelManagedSSLConnection), ("sentinel", "asyncio.sentinel")),
    )
    for module in [f"{package}.{name}" for package in ("redis", "valkey") for name in modules]
    for kind in kinds
}
"""The connections of redis-py and valkey-py, blocking or not, by name: those of a kind are made in the same way."""
_FUNCTIONS: Final = ("redis_connect_func", "valkey_connect_func")
_NO_CLUSTER: Final = (
    "clusters are not supported by this release yet; until they are, use queue_prefix='{queue}:' and a client of the"
    " node that serves its slot"
)
_WAY_OUT: Final = "give redis_url instead; for tests, redis_url='embedded:///path' starts a server of their own"
_CLIENTS: Final = "a client of redis-py or valkey-py, such as redis.Redis"


class HasPool(Protocol):
    """A client of redis-py or valkey-py: its pool has the settings of its connections."""

    @property
    def connection_pool(self) -> Any:
        """The pool."""


def check_client(client: object) -> redis.Redis:
    """Return a client whose server and settings our own connections can have, too: blocking and on an event loop.

    It is the one that was given, if that is a blocking one of redis-py; else one with the same settings.

    Raises:
        InvalidInputError: it is not a client, or connects in a special way that our connections would not follow.
    """
    kind = type(client)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if any(base.__name__ in {"RedisCluster", "ValkeyCluster"} for base in kind.__mro__):
        raise refused("redis_client", "a client of one server or of a sentinel service", name, _NO_CLUSTER)
    pool = getattr(client, "connection_pool", None)
    ours = {base.__module__.partition(".")[0] for base in kind.__mro__} & {"redis", "valkey"}
    if not ours or not hasattr(pool, "connection_class") or not hasattr(pool, "connection_kwargs"):
        raise refused("redis_client", _CLIENTS, name, _WAY_OUT)
    if not getattr(pool, "is_master", True):
        raise refused("redis_client", "a client of the primary", "one of replicas", "use Sentinel(...).master_for(...)")
    if problem := loss(pool):
        expected = "a client that connects as redis-py does, since coroutines and workers open connections of their own"
        raise refused("redis_client", expected, f"one that cannot be repeated: {problem}", _WAY_OUT)
    if isinstance(client, redis.Redis) and isinstance(pool, redis.ConnectionPool):
        return client
    try:
        return _repeated(pool)
    except (TypeError, ValueError, AttributeError) as error:
        got = f"one whose settings cannot be read ({type(error).__name__})"
        raise refused("redis_client", _CLIENTS, got, _WAY_OUT) from None


def no_retry() -> dict[str, Any]:
    """Return the settings of a client that leaves trying again to others, and speaks what our own wire speaks."""
    return {"retry": Retry(NoBackoff(), 0), "protocol": 2}


def loss(pool: Any) -> str:
    """Return what of a client's way to connect our own connections cannot have; empty when there is nothing."""
    kind = same_kind(pool.connection_class)
    settings = pool.connection_kwargs
    if kind is None:
        return f"its connections are of the class {_name_of(pool.connection_class)}"
    for name in _FUNCTIONS:
        if settings.get(name) is not None:
            return f"it has a {name}"
    blocking = KINDS[kind]
    unknown = (parameters(blocking) - parameters(AIO_KINDS[blocking]) - DROPPED).intersection(settings)
    lost = sorted(name for name in unknown if settings[name])
    return f"redis-py {redis.__version__} has no {', '.join(lost)} in coroutines" if lost else ""


def same_kind(kind: type) -> type | None:
    """Return the blocking connection of redis-py that is made in the same way; None if there is none."""
    return kind if kind in KINDS else _SAME_KINDS.get(_name_of(kind))


def parameters(kind: type) -> set[str]:
    """Return the names of all settings that a class of connections takes."""
    names: set[str] = set()
    for base in kind.__mro__:
        if (initializer := vars(base).get("__init__")) is not None:
            names.update(inspect.signature(initializer).parameters)
    return names


def node_pool(pool: Any, host: str, port: int) -> redis.ConnectionPool:
    """Return a pool that leads to one server, with the settings that a pool has for the primary of sentinels."""
    kind = SSLConnection if KINDS[same_kind(pool.connection_class) or Connection] is TlsConnection else Connection
    return redis.ConnectionPool(kind, **{**_kept(kind, pool), "host": host, "port": port})


def _repeated(pool: Any) -> redis.Redis:
    """Return a blocking client of redis-py with the settings of another one."""
    kind = same_kind(pool.connection_class) or Connection
    settings = _kept(kind, pool)
    if not hasattr(pool, "service_name"):
        return redis.Redis(connection_pool=redis.ConnectionPool(kind, **settings))
    manager: Any = Sentinel([])
    manager.sentinels = [_repeated(sentinel.connection_pool) for sentinel in pool.sentinel_manager.sentinels]
    repeated: Any = SentinelConnectionPool(pool.service_name, manager, connection_class=kind, **settings)
    return redis.Redis(connection_pool=repeated)


def _kept(kind: type, pool: Any) -> dict[str, Any]:
    accepted = parameters(KINDS[kind]) - DROPPED - {"lib_name", "lib_version"}
    return {name: value for name, value in pool.connection_kwargs.items() if name in accepted}


def _name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
