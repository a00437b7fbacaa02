"""What this process counts and which changes it logs. Never talks to Redis."""

from __future__ import annotations

from queue_system.metrics.logs import LogThrottle, StructuredLogger
from queue_system.metrics.observer import SettlementObserver
from queue_system.metrics.recorder import MetricsRecorder

__all__ = ["LogThrottle", "MetricsRecorder", "SettlementObserver", "StructuredLogger"]
