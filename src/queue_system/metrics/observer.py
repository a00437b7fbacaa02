"""Who wants to know what workers settle, such as an exporter of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class SettlementObserver(Protocol):
    """Called once a turn, on the worker's event loop; whatever it does delays that turn."""

    def settled(self, settlements: Sequence[Any]) -> None:
        """Note which settlements the server accepted."""

    def lease_lost(self, operations: int) -> None:
        """Note how many deliveries were taken over by others."""
