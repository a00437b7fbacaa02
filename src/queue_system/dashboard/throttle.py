"""How often a client may try a wrong token."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

MOST_FAILURES: Final = 10
"""How many wrong tokens of one client are checked within `WINDOW_S`."""
WINDOW_S: Final = 60.0
_MOST_CLIENTS: Final = 1000


class Throttle:
    """Counts wrong tokens by client; a network of IPv6, of which anybody has many addresses, is one client."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, client: str) -> float:
        """Return how long a client's next token is not checked; 0: it may try."""
        failures = self._failures.get(_network(client))
        if failures is None or len(failures) < MOST_FAILURES:
            return 0.0
        return max(0.0, WINDOW_S - (self._clock() - failures[0]))

    def failed(self, client: str) -> int:
        """Note a wrong token, and return how many there were within the time."""
        now = self._clock()
        name = _network(client)
        failures = self._failures.pop(name, None) or deque(maxlen=MOST_FAILURES)
        while failures and now - failures[0] >= WINDOW_S:
            failures.popleft()
        failures.append(now)
        self._failures[name] = failures
        if len(self._failures) > _MOST_CLIENTS:
            self._failures.popitem(last=False)
        return len(failures)

    def succeeded(self, client: str) -> None:
        """Forget a client's failures."""
        self._failures.pop(_network(client), None)


def _network(client: str) -> str:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else client  # noqa: PLR2004
