"""Who wants to know what workers settle, such as an exporter of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class SettlementObserver(Protocol):
    """Told once a turn, on the worker's event loop; whatever it does delays that turn."""

    def settled(self, settlements: Sequence[Any]) -> None:
        """Learn which settlements the server accepted."""

    def lease_lost(self, operations: int) -> None:
        """Learn how many deliveries were taken over by others."""
