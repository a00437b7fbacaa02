"""The import path of the records of dead letters: re-exports them, nothing else."""

from __future__ import annotations

from queue_system.client.dead_letters import DeadLetter, DeadLetterPage

__all__ = ["DeadLetter", "DeadLetterPage"]
