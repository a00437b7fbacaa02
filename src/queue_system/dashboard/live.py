"""The parts of pages that change every second, rendered once for all viewers."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from queue_system.dashboard.rendering import Renderer
from queue_system.dashboard.sampler import Sampler, Snapshot
from queue_system.dashboard.stats import NOTHING, QueueStats
from queue_system.inspection.fleet import rests_of

VIEWS: Final = ("overview", "queues", "workers", "dead_letters", "none")
"""The pages that have a part of their own that is alive; every page shows the state of the connection."""

_PARTS: Final[Mapping[str, Sequence[str]]] = {"none": (), "dead_letters": ("failures", "system_errors")}
MOST_QUEUES: Final = 200
_BUSIEST: Final = 8
_MOST_RESTING: Final = 5
_LONGEST_STREAM_S: Final = 3600.0


class Live:
    """Fragments of HTML for the latest snapshot."""

    def __init__(self, renderer: Renderer, sampler: Sampler) -> None:
        self.sampler = sampler
        self._renderer = renderer
        self._serial = -1
        self._rendered: dict[tuple[str, str], dict[str, str]] = {}

    def fragments(self, snapshot: Snapshot, view: str, root: str) -> dict[str, str]:
        """Render what changes on a page: the name of each part and its HTML. `root` is where the dashboard lives."""
        if snapshot.serial != self._serial or not snapshot.serial:
            self._rendered.clear()
            self._serial = snapshot.serial
        parts = self._rendered.get((view, root))
        if parts is None:
            values = _values(snapshot, root)
            parts = {name: self._renderer.render(f"live_{name}.html", values) for name in ("state", "banner", "badge")}
            for name in _PARTS.get(view, (view,)):
                parts[name] = self._renderer.render(f"live_{name}.html", values)
            self._rendered[view, root] = parts
        return parts

    async def events(self, view: str, root: str) -> AsyncIterator[str]:
        """Yield server-sent events, each with the parts that have changed since the one before, for an hour at most.

        A browser then comes back, and is let in only if it still may come.
        """
        sent: dict[str, str] = {}
        began = time.monotonic()
        async for snapshot in self.sampler.follow(inflight=view == "workers"):
            parts = self.fragments(snapshot, view, root)
            changed = {name: html for name, html in parts.items() if sent.get(name) != html}
            sent = parts
            yield f"data: {json.dumps(changed)}\n\n"
            if time.monotonic() - began >= _LONGEST_STREAM_S:
                return


def _values(snapshot: Snapshot, root: str) -> dict[str, Any]:
    stats = snapshot.stats or NOTHING
    queues = sorted(stats.fleet.queues, key=_by_depth)
    return {
        "root": root,
        "snapshot": snapshot,
        "stats": stats,
        "fleet": stats.fleet,
        "resting": dict(list(rests_of(stats.fleet).items())[:_MOST_RESTING]),
        "queues": queues[:MOST_QUEUES],
        "more_queues": max(0, len(queues) - MOST_QUEUES),
        "busiest": queues[:_BUSIEST],
        "deepest": max([queue.depth for queue in queues], default=0) or 1,
    }


def _by_depth(queue: QueueStats) -> tuple[int, str, str]:
    return -queue.depth, queue.name, queue.priority
