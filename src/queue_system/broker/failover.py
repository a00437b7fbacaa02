"""Puts a replica in the primary's place without losing a write: what `queue-system failover` does. Blocks.

Where sentinels know COORDINATED, as those of Valkey 9 do, the servers hand over by themselves. Elsewhere writes are
paused on the primary until every replica has them all; only then are the sentinels told. From there on nothing can be
taken back: what the old primary took now would be lost, so its writes stay paused until the outcome is known.
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
from queue_system.errors import AccessDeniedError, QueueSystemError, ServerError, ServerUnreachableError

PAUSE_MS: Final = 15_000
"""How long writes are paused at once; while the sentinels switch, the pause is renewed."""
_NAME: Final = "queue-system-failover"
"""What the connection calls itself: a pause belongs to the whole server, so one command has it at a time."""
_SHORTEST_WAIT_S: Final = 1.5
"""Replicas confirm once a second."""
_SHARE_OF_SILENCE: Final = 0.6
"""A pause holds up what sentinels send: for so long of the silence after which they take a server for dead."""
_USUAL_SILENCE_S: Final = 5.0
_USUAL_SWITCH_S: Final = 180.0
_GIVEN_UP_AFTER_S: Final = 2.0
_LOOK_EVERY_S: Final = 0.05
_COORDINATED_SINCE: Final = 9
_FOLLOWER: Final = re.compile(r"slave\d+\Z")

Tell = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica as the primary sees it: where it is, and how many bytes it is behind."""

    place: str
    behind: int
    silent_s: int = 0
    """How long ago it has confirmed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is the primary of a service, who could follow, and how that would be done."""

    service: str
    primary: Endpoint
    replicas: Sequence[Replica]
    coordinated: bool
    silence_s: float = _USUAL_SILENCE_S
    """After how long a silence the sentinels take a server for dead."""
    switch_s: float = _USUAL_SWITCH_S
    """For how long they try to switch."""

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
        raise ServerError(
            f"{primary.address} has no replica that is connected now: there is none to switch to;"
            " try again in a moment if there has just been a switch"
        )
    major = version.partition(".")[0]
    coordinated = major.isdigit() and int(major) >= _COORDINATED_SINCE
    known = _master(sentinels)
    silence_s = _seconds(known.get("down-after-milliseconds"), _USUAL_SILENCE_S)
    switch_s = _seconds(known.get("failover-timeout"), _USUAL_SWITCH_S)
    return Plan(sentinels.service, primary, replicas, coordinated, silence_s, switch_s)


def fail_over(
    sentinels: Sentinels, plan: Plan, timeout_s: float, tell: Tell, begun: Callable[[], object] = lambda: None
) -> Outcome:
    """Switch as planned, and wait until another server is the primary.

    Where writes are paused, `timeout_s` limits the wait for the replicas. `begun` is called when the sentinels are
    about to be told: from there on nothing can be taken back, and it takes as long as they need. Without a pause,
    `present` of the outcome is "" if no other server was the primary in time; the sentinels may yet switch.

    Raises:
        ServerError: it was refused, another such command runs, or the replicas lag, and nothing was switched; or the
            outcome is not known, and writes stay paused for 15 s.
    """
    started = SYSTEM_CLOCK.monotonic()
    ends = started + timeout_s
    if plan.coordinated:
        tell("the primary hands over")
        sentinels.run("SENTINEL", "FAILOVER", plan.service, "COORDINATED")
        present = _next_primary(sentinels, plan, ends)
    else:
        present = _fail_over_paused(sentinels, plan, ends, tell, begun)
    return Outcome(plan.primary.place, present, SYSTEM_CLOCK.monotonic() - started)


def _fail_over_paused(sentinels: Sentinels, plan: Plan, ends: float, tell: Tell, begun: Callable[[], object]) -> str:
    with _connected(plan.primary) as connection:
        _check_alone(connection)
        _ask(connection, "CLIENT", "PAUSE", PAUSE_MS, "WRITE")
        try:
            tell("writes are paused; waiting for the replicas")
            lagging = _lagging(connection, plan, ends)
            if not lagging:
                begun()
        except BaseException:
            _resume(connection)
            raise
        if lagging:
            _resume(connection)
            raise _not_switched(sentinels, plan, f"{', '.join(lagging)} did not confirm in time to have all data")
        tell("the replicas have all data; the sentinels switch")
        try:
            sentinels.run("SENTINEL", "FAILOVER", plan.service)
        except ServerUnreachableError:
            pass  # it may have arrived
        except ServerError as error:
            if "INPROG" not in str(error):  # they switch already, by themselves or for somebody else
                _resume(connection)
                raise
        return _switched(sentinels, plan, connection)


def _switched(sentinels: Sentinels, plan: Plan, connection: SyncConnection) -> str:
    """Wait until another server is the primary, and return its place; the old one takes no writes meanwhile.

    Raises ServerError: the sentinels have given up, or nobody can tell.
    """
    ends = SYSTEM_CLOCK.monotonic() + plan.switch_s + plan.silence_s
    idle_since: float | None = None
    while (now := SYSTEM_CLOCK.monotonic()) < ends:
        if present := _next_primary(sentinels, plan, min(ends, now + 0.5)):
            with contextlib.suppress(QueueSystemError):  # denied, the sentinels do it after ten seconds
                host, _, port = present.rpartition(":")
                _ask(connection, "REPLICAOF", host.strip("[]"), port)
            _resume(connection)
            return present
        with contextlib.suppress(QueueSystemError):  # dead, it takes no writes either
            _ask(connection, "CLIENT", "PAUSE", PAUSE_MS, "WRITE")
            all_there = {each.place for each in _replicas(connection)} >= {each.place for each in plan.replicas}
            at_work = "failover_in_progress" in _master(sentinels).get("flags", "") or not all_there
            idle_since = None if at_work else now if idle_since is None else idle_since
            if idle_since is not None and now - idle_since > _GIVEN_UP_AFTER_S:
                _resume(connection)
                raise _not_switched(sentinels, plan, "the sentinels have given up")
    raise ServerError(
        f"nobody tells whether another server is the primary of {plan.service!r} now; writes to {plan.primary.address}"
        f" stay paused for {PAUSE_MS // 1000} s: see to the sentinels, then look with status"
    )


def _check_alone(connection: SyncConnection) -> None:
    """Raise ServerError if another command of this kind is at work on this server: it came first."""
    with contextlib.suppress(AccessDeniedError):
        _ask(connection, "CLIENT", "SETNAME", _NAME)
        own = _ask(connection, "CLIENT", "ID")
        for line in _ask(connection, "CLIENT", "LIST").decode(errors="replace").splitlines():
            fields = dict(part.split("=", 1) for part in line.split(" ") if "=" in part)
            if fields.get("name") == _NAME and int(fields.get("id", own)) < own:
                problem = f"another failover is under way, from {redact(fields.get('addr', '?'))}"
                raise ServerError(f"{problem}; wait until it has ended")


def _lagging(connection: SyncConnection, plan: Plan, ends: float) -> list[str]:
    """Wait until the replicas have all data, not for long; return those that have not confirmed it.

    Those that are silent for so long that no sentinel would choose them are not waited for.
    """
    longest_s = min(max(_SHORTEST_WAIT_S, _SHARE_OF_SILENCE * plan.silence_s), PAUSE_MS / 2000)
    ends = min(ends, SYSTEM_CLOCK.monotonic() + longest_s)
    while True:
        waited = [each for each in _replicas(connection) if each.silent_s <= max(2.0, plan.silence_s)]
        lagging = [each.place for each in waited if each.behind]
        if not waited:
            return [each.place for each in plan.replicas]
        if not lagging or SYSTEM_CLOCK.monotonic() > ends:
            return lagging
        time.sleep(_LOOK_EVERY_S)


def _resume(connection: SyncConnection) -> None:
    with contextlib.suppress(QueueSystemError):
        _ask(connection, "CLIENT", "UNPAUSE")


def _not_switched(sentinels: Sentinels, plan: Plan, problem: str) -> ServerError:
    """Return the error of a switch that came to nothing, unless the sentinels have switched by themselves meanwhile."""
    with contextlib.suppress(QueueSystemError):
        found = sentinels.ask(plan.primary, doubted=True)
        if found is not plan.primary:
            return ServerError(
                f"{problem}, but the sentinels have switched by themselves: {found.place} is the primary"
            )
    return ServerError(f"{problem}: nothing was switched, and writes go on")


def _master(sentinels: Sentinels) -> dict[str, str]:
    """Return what a sentinel says of the primary; nothing where an ACL denies it."""
    try:
        told = sentinels.run("SENTINEL", "MASTER", sentinels.service)
    except AccessDeniedError:
        return {}
    texts = [each.decode(errors="replace") if isinstance(each, bytes) else str(each) for each in told]
    return dict(zip(texts[::2], texts[1::2], strict=False))


def _seconds(milliseconds: str | None, usual: float) -> float:
    return int(milliseconds) / 1000 if milliseconds is not None and milliseconds.isdecimal() else usual


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
            host = redact(fields.get("ip", "?"))
            place = f"{f'[{host}]' if ':' in host else host}:{fields.get('port', '?')}"
            behind = max(0, offset - int(fields.get("offset", "0")))
            found.append(Replica(place, behind, int(fields.get("lag", "0"))))
    return found
