"""Puts a replica in the primary's place without losing a write: what `queue-system failover` does. Blocks.

Where sentinels know COORDINATED, as those of Valkey 9 do, the servers hand over by themselves. Elsewhere writes are
paused on the primary until every replica has them all; only then are the sentinels told. The pause outlasts the time
that sentinels take to make a replica of the old primary.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from queue_system.broker.connection import Endpoint, SyncConnection
from queue_system.broker.failures import redact, typed
from queue_system.broker.protocol import Argument, plain
from queue_system.broker.replies import parse_info
from queue_system.broker.sentinel import Sentinels
from queue_system.broker.wire import ErrorReply
from queue_system.clock import SYSTEM_CLOCK
from queue_system.errors import QueueSystemError, ServerError, ServerUnreachableError

PAUSE_MS: Final = 15_000
"""How long writes are paused at most; sentinels demote the old primary within 11 s."""
_LOOK_EVERY_S: Final = 0.05
_COORDINATED_SINCE: Final = 9
_FOLLOWER: Final = re.compile(r"slave\d+\Z")

Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica as the primary sees it: where it is, and how many bytes it is behind."""

    place: str
    behind: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is the primary of a service, who could follow, and how that would be done."""

    service: str
    primary: Endpoint
    replicas: Sequence[Replica]
    coordinated: bool

    @property
    def how(self) -> str:
        """The way, in words."""
        if self.coordinated:
            return "COORDINATED: the primary hands over to a replica that has all its data"
        return f"writes are paused for at most {PAUSE_MS // 1000} s until every replica has them, then sentinels switch"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a failover has brought. `present` is "" if no other server was the primary in time."""

    former: str
    present: str
    took_s: float


def plan_failover(sentinels: Sentinels) -> Plan:
    """Return what a failover would do; changes nothing.

    Raises:
        ServerError: the primary has no replica that could follow, or does not say; or the sentinels do not answer.
    """
    primary = sentinels.ask(None, doubted=False)
    told = parse_info(sentinels.run("INFO", "server"))
    version = told.get("valkey_version", "")
    with _connected(primary) as connection:
        replicas = _replicas(connection)
    if not replicas:
        raise ServerError(f"{primary.address} has no replica that is connected: there is none to switch to")
    major = version.partition(".")[0]
    coordinated = major.isdigit() and int(major) >= _COORDINATED_SINCE
    return Plan(sentinels.service, primary, replicas, coordinated)


def fail_over(sentinels: Sentinels, plan: Plan, timeout_s: float, tell: Tell) -> Outcome:
    """Switch as planned, and wait until another server is the primary; writes go on if none is within `timeout_s`.

    Raises:
        ServerError: a server or the sentinels refuse it; nothing was switched.
    """
    started = SYSTEM_CLOCK.monotonic()
    ends = started + timeout_s
    if plan.coordinated:
        tell("the primary hands over")
        sentinels.run("SENTINEL", "FAILOVER", plan.service, "COORDINATED")
        present = _next_primary(sentinels, plan, ends)
    else:
        present = _fail_over_paused(sentinels, plan, ends, tell)
    return Outcome(plan.primary.place, present, SYSTEM_CLOCK.monotonic() - started)


def _fail_over_paused(sentinels: Sentinels, plan: Plan, ends: float, tell: Tell) -> str:
    present = ""
    with _connected(plan.primary) as connection:
        _ask(connection, "CLIENT", "PAUSE", PAUSE_MS, "WRITE")
        try:
            tell("writes are paused; waiting for the replicas")
            pause_ends = min(ends, SYSTEM_CLOCK.monotonic() + PAUSE_MS / 2000)
            while any(replica.behind for replica in _replicas(connection)):
                if SYSTEM_CLOCK.monotonic() > pause_ends:
                    raise ServerError(f"{plan.primary.address}: the replicas do not catch up; nothing was switched")
                time.sleep(_LOOK_EVERY_S)
            tell("the replicas have all data; the sentinels switch")
            sentinels.run("SENTINEL", "FAILOVER", plan.service)
            present = _next_primary(sentinels, plan, ends)
        finally:
            with contextlib.suppress(QueueSystemError):  # denied, the sentinels do it after ten seconds
                if present:
                    host, _, port = present.rpartition(":")
                    _ask(connection, "REPLICAOF", host.strip("[]"), port)
                _ask(connection, "CLIENT", "UNPAUSE")
    return present


def _next_primary(sentinels: Sentinels, plan: Plan, ends: float) -> str:
    """Wait until the sentinels name another server, and it says that it is the primary; return its place, or ""."""
    known = plan.primary
    while SYSTEM_CLOCK.monotonic() < ends:
        with contextlib.suppress(ServerUnreachableError):
            found = sentinels.ask(known, doubted=True)
            if found is not plan.primary:
                known = found
                found.connect().close()  # it says there what it is
                return found.place
        time.sleep(_LOOK_EVERY_S)
    return ""


@contextlib.contextmanager
def _connected(endpoint: Endpoint) -> Iterator[SyncConnection]:
    try:
        connection = endpoint.connect()
    except OSError as error:
        raise typed(error, endpoint.address) from error
    connection.wire.settle_in()
    try:
        yield connection
    finally:
        connection.close()


def _ask(connection: SyncConnection, *words: Argument) -> Any:
    address = connection.endpoint.address
    try:
        connection.wire.send(plain(bytes, *words).request())
        reply = connection.wire.receive()
    except OSError as error:
        raise typed(error, address) from error
    if isinstance(reply, ErrorReply):
        raise typed(reply, address)
    return reply


def _replicas(connection: SyncConnection) -> list[Replica]:
    """Return the replicas that are connected and get what is written."""
    told = parse_info(_ask(connection, "INFO", "replication"))
    offset = int(told.get("master_repl_offset", "0"))
    found = []
    for name, value in told.items():
        if not _FOLLOWER.match(name):
            continue
        fields = dict(part.split("=", 1) for part in value.split(",") if "=" in part)
        if fields.get("state") == "online":
            place = f"{redact(fields.get('ip', '?'))}:{fields.get('port', '?')}"
            found.append(Replica(place, max(0, offset - int(fields.get("offset", "0")))))
    return found
