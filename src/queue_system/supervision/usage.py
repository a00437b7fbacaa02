"""What a worker has done, what it holds and how much memory it uses: when to leave or to be replaced."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from queue_system.errors import QueueSystemError
from queue_system.manager import QueueManager
from queue_system.model.keys import PRIORITIES
from queue_system.resilience import in_daemon_thread
from queue_system.worker import QueueWorker

_STATM = Path("/proc/self/statm")
_MIB = 1 << 20
_SHOWN = 5


async def is_exhausted(worker: QueueWorker) -> bool:
    """Return whether no item is ready or due for the worker and it holds none; False when the server does not say."""
    found = worker.snapshot()
    if not (found.worker_id and found.idle):
        return False
    try:
        if await in_daemon_thread(_open_operations, worker, found.worker_id):
            return False
    except QueueSystemError:
        return False
    found = worker.snapshot()
    return found.idle and (found.next_due_s is None or found.next_due_s > 0)


def _open_operations(worker: QueueWorker, worker_id: str) -> int:
    """Count what is ready, then what is booked: a claim moves an item from the first to the second, in one step."""
    config = worker.config
    status = QueueManager(config).get_queue_status()
    lists = [config.get_queue_key(name, priority) for name in worker.queues for priority in PRIORITIES]
    ready = sum(int(status.get(key, 0)) for key in lists) if lists else int(status["total_items"])
    shard = config.shard
    return ready or len(shard.transport.run(shard.commands.tokens(worker_id)))


def running_operations(worker: QueueWorker) -> list[str]:
    """Return the ids of some operations that run now."""
    return list(worker.snapshot().operations[:_SHOWN])


def settled_attempts(worker: QueueWorker) -> int:
    """Return how many attempts this process has settled, whatever their verdict."""
    metrics = worker.config.get_metrics()
    return sum(int(metrics.get(name, 0)) for name in ("processed", "failed", "retried", "system_errors"))


def resident_mb() -> float:
    """Return this process's resident memory in MiB; where the system does not report it, its maximum so far."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / _MIB if sys.platform == "darwin" else peak / 1024
    return pages * resource.getpagesize() / _MIB
