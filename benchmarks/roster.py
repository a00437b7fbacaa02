"""Who takes part: each contestant's file, variant, packages, and what it cannot do. Never starts anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

OWN = "queue_system"
"""The environment of this queue and the floor: what a user has, since redis-py imports what it finds installed."""
NODE = "node"
REGIMES: Final[dict[str, tuple[int, int]]] = {"jitter 1x5": (1, 5), "jitter 1x50": (1, 50), "jitter 4x5": (4, 5)}
"""The measures of small turns: how many workers with how many slots each."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One row of the tables.

    `environment` names a folder under `.bench/venvs`. `probe` is the size of the first, unmeasured drain, from which
    that of the measured ones follows. `lacks` gives for each measure that is left out the reason.
    """

    name: str
    module: str
    probe: int
    environment: str = OWN
    variant: str = ""
    requirements: tuple[str, ...] = ("--editable", ".", "uvloop", "prometheus-client")
    lacks: Mapping[str, str] = field(default_factory=dict)


_SMALL_TURNS = (*REGIMES, "trickle", "rest")
_FLOOR_ONLY_DRAINS = dict.fromkeys(
    ("drain_sync", "latency", "idle", "recovery", "enqueue", "batch", *_SMALL_TURNS), "no such thing at the floor"
)
_FUNCTIONS_ONLY = {
    "drain_sync": "runs functions only: `drain` is that of a sync no-op",
    **dict.fromkeys(REGIMES, "runs functions only, and jobs that wait are coroutines"),
}
_ONE_BY_ONE = dict.fromkeys(REGIMES, "handles one message of a list at a time")

FLOOR = (
    Contestant(
        "floor", "floor", 100_000, lacks={k: v for k, v in _FLOOR_ONLY_DRAINS.items() if k not in {"enqueue", "batch"}}
    ),
    Contestant("floor, no uvloop", "floor", 100_000, variant="asyncio", lacks=_FLOOR_ONLY_DRAINS),
    Contestant(
        "floor, BLPOP",
        "floor",
        1,
        variant="wake",
        lacks=dict.fromkeys(
            ("drain", "drain_sync", "enqueue", "batch", "idle", "recovery", *_SMALL_TURNS), "only waking is measured"
        ),
    ),
)

OURS = Contestant("queue_system", "ours", 50_000)
OURS_OBSERVED = Contestant("queue_system, observed", "ours", 50_000, variant="observed")
"""With Prometheus metrics and JSON log lines of INFO on."""
OURS_WITHOUT_UVLOOP = Contestant(
    "queue_system, no uvloop",
    "ours",
    50_000,
    variant="asyncio",
    lacks=dict.fromkeys(("enqueue", "batch", "recovery", *_SMALL_TURNS), "as with uvloop"),
)

PEERS = (
    Contestant(
        "repid", "repid", 5000, "repid", requirements=("repid[redis]", "typing_extensions", "hiredis", "uvloop")
    ),
    Contestant("taskiq, list", "taskiq", 2000, "taskiq", "", ("taskiq", "taskiq-redis", "hiredis", "uvloop")),
    Contestant("taskiq, stream", "taskiq", 2000, "taskiq", "stream", ("taskiq", "taskiq-redis", "hiredis", "uvloop")),
    Contestant(
        "faststream, list",
        "faststream",
        2000,
        "faststream",
        "",
        ("faststream[redis]", "hiredis", "uvloop"),
        _ONE_BY_ONE,
    ),
    Contestant(
        "faststream, stream", "faststream", 2000, "faststream", "stream", ("faststream[redis]", "hiredis", "uvloop")
    ),
    Contestant("saq", "saq", 1000, "saq", requirements=("saq[redis,hiredis]", "typing_extensions", "uvloop")),
    Contestant("huey", "huey", 1000, "huey", requirements=("huey", "redis[hiredis]"), lacks=_FUNCTIONS_ONLY),
    Contestant(
        "arq",
        "arq",
        1000,
        "arq",
        requirements=("arq", "hiredis", "uvloop"),
        lacks={"drain_sync": "runs coroutines only"},
    ),
    Contestant("dramatiq", "dramatiq", 1000, "dramatiq", requirements=("dramatiq[redis]", "hiredis")),
    Contestant("streaq", "streaq", 1000, "streaq", requirements=("streaq", "uvloop")),
    Contestant("celery", "celery", 500, "celery", requirements=("celery[redis]", "hiredis"), lacks=_FUNCTIONS_ONLY),
    Contestant("rq", "rq", 200, "rq", requirements=("rq", "hiredis"), lacks=_FUNCTIONS_ONLY),
    Contestant("docket", "docket", 500, "docket", requirements=("pydocket", "hiredis", "uvloop")),
    Contestant(
        "BullMQ (Node)",
        "bullmq",
        5000,
        NODE,
        requirements=("bullmq", "ioredis"),
        lacks={"drain_sync": "runs async functions only"},
    ),
)
