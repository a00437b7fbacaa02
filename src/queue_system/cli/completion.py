"""Names that only the server knows, for the shell's completion."""

from __future__ import annotations

import contextlib
import os
from typing import Final

import typer

from queue_system.config import QueueConfig
from queue_system.errors import QueueSystemError
from queue_system.inspection.reading import read
from queue_system.inspection.status import some_queues_flow

_PATIENCE_S: Final = 1.0


def queue_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of queues that begin with what was typed; none without an address or an answer.

    An embedded server is not asked: to ask it is to start it.
    """
    typed = {**context.find_root().params, **{name: value for name, value in context.params.items() if value}}
    url = typed.get("url") or os.environ.get("REDIS_URL")
    if not url or url.lower().startswith("embedded:"):
        return []
    with contextlib.suppress(QueueSystemError):
        shard = QueueConfig(
            redis_url=url, queue_prefix=typed.get("prefix") or "queue:", connection_timeout=_PATIENCE_S
        ).shard
        queues = read(shard, some_queues_flow(shard), retries=0)
        return sorted(queue for queue in queues if queue.startswith(incomplete))
    return []
