"""How an unreliable connection shows in the log: a line a second at most, and good news only after bad news."""

from __future__ import annotations

from queue_system.broker.access import AccessBackoff
from queue_system.errors import ServerUnreachableError
from queue_system.execution.reconnect import Reconnect
from queue_system.metrics import LogThrottle, StructuredLogger
from tests.kit.clocks import ManualClock
from tests.kit.logs import LineLogger


async def test_a_connection_that_breaks_again_and_again_does_not_flood_the_log() -> None:
    clock, log, counted = ManualClock(), LineLogger(), []
    throttle = LogThrottle(1.0, clock)
    trouble = Reconnect(StructuredLogger(log), throttle, lambda: counted.append(1), AccessBackoff(clock))
    seconds = 5
    for _ in range(seconds * 100):
        await trouble.wait(ServerUnreachableError("gone"))  # the first failure in a row waits for nothing
        trouble.over()
        clock.advance(0.01)
    assert [line.message for line in log.lines] == [
        "server trouble: trying again",
        "the server answers again",
    ] * seconds


async def test_the_end_of_a_trouble_is_told_once_if_its_begin_was() -> None:
    log = LineLogger()
    trouble = Reconnect(StructuredLogger(log), LogThrottle(1.0, ManualClock()), lambda: None, AccessBackoff())
    assert not trouble.over()
    await trouble.wait(ServerUnreachableError("gone"))
    assert trouble.over()
    assert not trouble.over()
    await trouble.wait(ServerUnreachableError("gone"))
    assert not trouble.over(), "the throttle held back that it began"
    assert [line.fields.get("failures") for line in log.lines] == [1, 1]
