"""What follows a wrong token: a line in the log, and a pause for clients that try many."""

from __future__ import annotations

import math
from typing import Final

from starlette.requests import HTTPConnection

from queue_system.dashboard.throttle import MOST_FAILURES, Throttle
from queue_system.metrics import StructuredLogger

TOO_OFTEN: Final = "Too many wrong tokens: wait a minute."


def client_of(connection: HTTPConnection) -> str:
    """Return the address of who asks; behind a trusted proxy, what that says."""
    return connection.client.host if connection.client else "local"


def note_failure(throttle: Throttle, log: StructuredLogger, connection: HTTPConnection) -> float:
    """Note and log a wrong token; return for how long, in s, no other of this client is looked at. 0: it may try.

    What comes during that time is refused unseen, and writes no line.
    """
    client = client_of(connection)
    wait_s = throttle.wait_s(client)
    if wait_s:
        return wait_s
    failures = throttle.failed(client)
    log.warning("dashboard refused a wrong token", client=client, failures=failures, paused=failures >= MOST_FAILURES)
    return 0.0


def retry_after(wait_s: float) -> dict[str, str]:
    """Return the header that says when to try again."""
    return {"retry-after": str(math.ceil(wait_s))}
