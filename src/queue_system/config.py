"""QueueConfig: the validated settings, and what manager and worker share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import redis

from queue_system.broker.clients import HasPool, check_client
from queue_system.broker.commands import Commands
from queue_system.broker.connection import Endpoint
from queue_system.broker.failures import redact
from queue_system.broker.routes import Switch
from queue_system.broker.server import Server
from queue_system.broker.shard import BREAKER, Shard
from queue_system.broker.sync import SyncTransport
from queue_system.broker.urls import Servers, read_url
from queue_system.errors import (
    CircuitOpenError,
    ServerError,
    UnknownOperationError,
    WaitTimeoutError,
)
from queue_system.imports.policy import Application, missing_modules, never_imported
from queue_system.metrics import MetricsRecorder, SettlementObserver, StructuredLogger
from queue_system.model.arguments import DURABILITIES
from queue_system.model.encryption import Encryption, make_cipher
from queue_system.model.keys import PRIORITIES, Keys, check_prefix, check_priority, check_queue_name
from queue_system.model.middleware import CallNext, Middleware, RunningOperation, check_middleware, make_wrapping
from queue_system.model.operation import largest_item
from queue_system.model.record import keeping
from queue_system.model.registry import Registry
from queue_system.model.signing import make_signer
from queue_system.model.trace import Tracing
from queue_system.resilience import CircuitBreaker, circuit_breaker
from queue_system.validation import (
    check_choice,
    check_flag,
    check_list,
    check_seconds,
    check_text,
    check_whole,
    refused,
    shown,
)

_SILENCES_PER_LEASE: Final = 3
_MOST_RETRIES: Final = 1000
_LARGEST: Final = 2**53


def breaker_name(owner: Any) -> str:
    """Name the breaker of a configuration, for itself or for what holds it as `config`."""
    return str(getattr(owner, "config", owner).shard.breaker_name)


class QueueConfig:
    """Settings, connections, names and metrics that one application's manager and workers share.

    The constructor does no I/O and needs no event loop. Thread-safe, and safe across a fork.

    Args:
        redis_client: a client of redis-py or valkey-py, blocking or not, whose settings are used; the system opens
            connections of its own. That of `Sentinel(...).master_for(...)` means the primary that the sentinels name.
            One that connects in a way of its own, such as fakeredis, is refused.
        redis_url: `redis://`, `rediss://`, `unix://`, `valkey://`, `valkeys://` or `embedded:///path`; for the primary
            that sentinels name `redis+sentinel://host1,host2/SERVICE/0`, likewise with the others. Without URL and
            client: `QUEUE_SYSTEM_REDIS_URL`, or what lies in the file `QUEUE_SYSTEM_REDIS_URL_FILE`, then `REDIS_URL`,
            then an embedded server in `QUEUE_SYSTEM_DATA_DIR` or `.queue-system/`.
        queue_prefix: what every key begins with.
        backup_ttl: how long, in s, dead letters are kept.
        logger: a stdlib logger, a structlog logger, or any object with `debug/info/warning/error(message, **fields)`.
        connection_timeout: limit, in s, of one attempt of a call, from the look-up of the host to the answer; a second
            more for each KiB that passes. A worker's own connection: of connecting, and of silence.
        max_connection_retries: how often a command is sent again after a lost connection; with sentinels,
            `failover_patience` counts.
        lease_seconds: how long a silent worker keeps its operations. Its heartbeat waits for an answer no longer than a
            third of it, whatever `connection_timeout` says.
        result_ttl: how long, in s, the record of a finished operation is kept. An enqueue whose answer is lost is not
            sent again later than half of it, since the record is what tells a resend from a new operation.
        dedup_ttl: how long, in s, the deduplication key of an operation without a sign of life stays taken. A running
            one shows a sign of life every third of that.
        max_item_bytes: the largest item that is accepted.
        allowed_modules: modules from which processors may be imported by name, their submodules included. None: every
            module in the current folder, or in that of the running script or the worker's target, that is not
            installed as a package.
        durability: what an enqueue waits for by default: the server's memory (`"fast"`), its disk (`"fsync"`) or a
            replica (`"replicated"`).
        max_dead_letters: how many each of `failures` and `system_errors` keeps; beyond that the oldest is dropped and
            counted as `dead_letters_dropped`.
        signing_keys: key ids and their secrets of at least 16 bytes. The first signs every item; a worker refuses items
            that none of them has signed. None: nothing is signed.
        encryption: an object with the methods `encrypt` and `decrypt` of bytes, for entities and results. None: plain.
        tracebacks: whether dead letters, records and log lines say where an error came from: the last lines of code,
            without local variables or passwords in URLs, up to 8 KiB.
        middleware: what surrounds each attempt of its workers, or is told of it, the outermost first: objects with
            methods of `queue_system.Middleware`, or async functions of `(operation, call_next)`.
        failover_patience: for how long, in s, a call whose server has failed is sent again while sentinels put another
            one in its place. Then it raises ServerUnreachableError.

    Raises:
        InvalidInputError: a value is wrong; `field` names it.
    """

    def __init__(
        self,
        redis_client: HasPool | None = None,
        redis_url: str | None = None,
        queue_prefix: str = "queue:",
        backup_ttl: float = 86400 * 7,
        logger: Any = None,
        connection_timeout: float = 5.0,
        max_connection_retries: int = 3,
        *,
        lease_seconds: float = 15.0,
        result_ttl: float = 300.0,
        dedup_ttl: float = 86400.0,
        max_item_bytes: int = 1024 * 1024,
        allowed_modules: Sequence[str] | None = None,
        durability: str = "fast",
        max_dead_letters: int = 100_000,
        signing_keys: Mapping[str, bytes | str] | None = None,
        encryption: Encryption | None = None,
        tracebacks: bool = True,
        middleware: Sequence[Middleware | Callable[[RunningOperation, CallNext], Awaitable[Any]]] = (),
        failover_patience: float = 5.0,
    ) -> None:
        servers = read_url(redis_url) if redis_url is not None else None
        self.redis_url = None if servers is None else servers.url
        self.queue_prefix = check_prefix(queue_prefix)
        self.backup_ttl = check_seconds("backup_ttl", backup_ttl, 1)
        self.connection_timeout = check_seconds("connection_timeout", connection_timeout, 0.001)
        self.max_connection_retries = check_whole("max_connection_retries", max_connection_retries, 0, _MOST_RETRIES)
        self.lease_seconds = check_seconds("lease_seconds", lease_seconds, 0.2)
        self.result_ttl = check_seconds("result_ttl", result_ttl)
        self.dedup_ttl = check_seconds("dedup_ttl", dedup_ttl, 0.001)
        self.lifetimes_ms: Final = int(self.dedup_ttl * 1000), keeping(self.result_ttl)[1]
        """How long a deduplication key shows life, and the record of a finished operation stays."""
        self.max_item_bytes = check_whole("max_item_bytes", max_item_bytes, 1, _LARGEST)
        self.durability = check_choice("durability", durability, DURABILITIES)
        self.max_dead_letters = check_whole("max_dead_letters", max_dead_letters, 1, _LARGEST)
        self.signer = make_signer(signing_keys, self.queue_prefix)
        self.cipher = make_cipher(encryption, self.queue_prefix)
        self.failover_patience = check_seconds("failover_patience", failover_patience)
        self._define_connections(redis_client, servers)
        self._define_queue_keys()
        self.middleware = check_middleware(middleware)
        self._define_reports(logger, tracebacks=tracebacks)
        self.registry = Registry(Application(check_modules(allowed_modules)))

    def _define_reports(self, logger: Any, *, tracebacks: bool) -> None:
        """Set up what reports on the operations: log, metrics, tracebacks, traces."""
        self.log = StructuredLogger.wrap(logger)
        self.logger: Any = self.log.raw
        self.metrics = MetricsRecorder(self.log)
        self.observers: list[SettlementObserver] = []
        """The observers of what workers of this configuration settle; read once a turn."""
        self.tracebacks = check_flag("tracebacks", tracebacks)
        self._tracing: Tracing | None = None
        self.wrapping = make_wrapping(None, self.middleware)
        """What wraps each attempt of its workers: traces, then the middleware; None: nothing."""

    @property
    def tracing(self) -> Tracing | None:
        """What traces enqueueing and execution; `queue_system.tracing.enable` sets it, None ends it."""
        return self._tracing

    @tracing.setter
    def tracing(self, tracing: Tracing | None) -> None:
        self._tracing = tracing
        self.wrapping = make_wrapping(tracing, self.middleware)

    def __repr__(self) -> str:
        server = redact(self.redis_url) if self.redis_url else "a client's" if self.redis_client else "by default"
        return f"<QueueConfig of {server}, prefix {self.queue_prefix!r}>"

    def _define_connections(self, redis_client: HasPool | None, servers: Servers | None) -> None:
        """Note how the server is reached; connects to nothing."""
        client = None if redis_client is None else check_client(redis_client)
        self._server = Server(client, servers, self.connection_timeout)
        self._noticed: set[str] = set()

    def _define_queue_keys(self) -> None:
        """Name the lists by priority, the dead letters and the registry under the prefix, and the shard they lie on."""
        keys = Keys(self.queue_prefix)
        self.queue_keys = {priority: f"{self.queue_prefix}{priority}:" for priority in PRIORITIES}
        self.failures_queue = keys.failures
        self.system_errors_queue = keys.system_errors
        most_sent = largest_item(self.max_item_bytes)
        self.shard = Shard(
            self._server,
            Commands(keys, self.max_dead_letters, most_sent=most_sent, kept_ms=int(self.backup_ttl * 1000)),
            retries=self.max_connection_retries,
            beat_silence_s=self.lease_seconds / _SILENCES_PER_LEASE,
            patience_s=self.failover_patience,
        )
        """Where all operations are. Its users assume one shard: with several, each would have to choose.

        It is handed on from there; nobody else reaches the server through a configuration.
        """
        self.shard.route.switched.append(self._tell_switch)
        self.shards: tuple[Shard, ...] = (self.shard,)
        """All of them, for what concerns each."""
        self.run = self.shard.run
        """Runs what a flow yields, from any thread, through the circuit breaker; raises what `Shard.run` raises."""
        self.arun = self.shard.arun
        """Does the same in a coroutine of any event loop."""

    @property
    def redis_client(self) -> redis.Redis | None:
        """The client that was given, or was made when there was need of one; None before that.

        In the place of one that is not blocking, or not redis-py's, stands one of redis-py with the same settings.
        """
        return self._server.known_client

    @redis_client.setter
    def redis_client(self, client: HasPool | None) -> None:
        self._server.known_client = None if client is None else check_client(client)

    @property
    def keys(self) -> Keys:
        """Names every key under the prefix."""
        return self.shard.keys

    @property
    def commands(self) -> Commands:
        """Builds what can be asked of the server."""
        return self.shard.commands

    @property
    def transport(self) -> SyncTransport:
        """Runs commands on blocking connections."""
        return self.shard.transport

    @property
    def breaker(self) -> CircuitBreaker:
        """The circuit breaker in front of the server."""
        return self.shard.breaker

    def get_queue_key(self, queue_name: str, priority: str = "normal") -> str:
        """Return the list of one queue, such as `queue:high:send_email`."""
        return self.shard.keys.queue(check_priority(priority), check_queue_name(queue_name))

    def get_registry_key(self) -> str:
        """Return the set of all such lists."""
        return self.shard.keys.registry

    def get_callback_key(self, callback_name: str, callback_module: str | None = None) -> str:
        """Return under which key a callable is registered: `module.name`, or the name alone."""
        return f"{callback_module}.{callback_name}" if callback_module else callback_name

    def register_callback(
        self, callback: Callable[..., Any], name: str | None = None, module: str | None = None
    ) -> None:
        """Register a processor or callback, under its own name and module or the ones given."""
        self.registry.register(callback, name, module)

    def update_metric(self, metric_name: str, value: Any = 1, force_log: bool = False) -> None:
        """Add to a counter, a sample to a mean (`avg_*`), or set a rate (`*_rate`); log what is worth a line."""
        self.metrics.update(metric_name, value, force_log)

    def get_metrics(self) -> dict[str, Any]:
        """Return this process's metrics, `success_rate` in percent included. Times are in ms."""
        return self.metrics.snapshot()

    @circuit_breaker(name=breaker_name, **BREAKER)
    def _ensure_redis_sync(self, retry_count: int | None = None) -> redis.Redis:
        """Return a client that has answered a ping, connecting with retries if need be.

        Raises:
            ServerUnreachableError: no answer after `retry_count` retries (default `max_connection_retries`).
            CircuitOpenError: too many calls have failed recently.
        """
        return self._server.answering_client(self.max_connection_retries if retry_count is None else retry_count)

    def close(self) -> None:
        """Close the idle connections of this process's threads. The next call opens one."""
        for shard in self.shards:
            shard.close()

    async def aclose(self) -> None:
        """Close this event loop's idle connections; those in use follow when the loop ends. The next call opens one."""
        for shard in self.shards:
            await shard.aclose()

    @property
    def circuit_state(self) -> str:
        """What the circuit breaker does with the next call: `"closed"` lets it through, `"open"` rejects it."""
        return str(self.shard.breaker.state)

    def notice_blocking(self, operation: str, twin: str) -> None:
        """Warn, once for each method, of a call that blocks the running event loop."""
        if operation not in self._noticed:
            self._noticed.add(operation)
            self.log.info("a blocking call holds up the event loop: await its async twin", call=operation, twin=twin)

    def _tell_switch(self, switch: Switch) -> None:
        """Log that another server is the primary, and count it."""
        self.metrics.update("failovers")
        self.log.warning(
            "another server is the primary now",
            service=switch.service,
            former=switch.former,
            present=switch.present,
            failing_s=round(switch.after_s, 3),
        )

    def _log_error(self, operation: str, error: BaseException) -> None:
        if isinstance(error, UnknownOperationError | WaitTimeoutError):
            return  # an answer to the caller, nothing that an operator should know
        if isinstance(error, ServerError | CircuitOpenError) and not self.shard.outage.ready():
            return  # an outage must not flood the log
        self.log.error("call failed", call=operation, error_type=type(error).__name__, error=redact(str(error)))

    def endpoint(self) -> Endpoint:
        """Return the server and how to connect to it; starts an embedded server where that is the choice."""
        return self._server.endpoint()

    def prepare(self) -> None:
        """Do what may block before a worker starts: have a server at hand, and warn of modules that are not there."""
        for name in missing_modules(self.registry.application.allowed_modules or ()):
            self.log.warning("allowed_modules names a module that cannot be found", module=name)
        for shard in self.shards:
            shard.prepare()

    @property
    def address(self) -> str:
        """The server's address for messages, without credentials. Connects to nothing, and starts nothing."""
        return self._server.address

    @property
    def primary(self) -> dict[str, str]:
        """The `service` of the sentinels and the host and port of its `primary`, once it is known; else nothing."""
        endpoint = self.shard.route.primary
        return {} if endpoint is None else {"service": endpoint.service, "primary": endpoint.place}

    def missing_data_dir(self) -> Path | None:
        """Return the folder in which the first call would start an embedded server that has never been; else None."""
        return self._server.missing_data_dir()


def check_modules(values: Any) -> tuple[str, ...] | None:
    """Return what may be `allowed_modules`. Raises InvalidInputError."""
    if values is None:
        return None
    expected = "the name of a module"
    listed = check_list("allowed_modules", values, "a list of modules")
    names = tuple([check_text("allowed_modules", name, expected) for name in listed])
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise refused("allowed_modules", expected, shown(name))
        if never_imported(name):
            raise refused(
                "allowed_modules",
                "a module of the application",
                f"{shown(name)}, which belongs to Python or to this package",
                "rename your module, or register its functions with register_callback",
            )
    return names
