"""The journal of a worker process, as its processors write it. Never reads it."""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path
from typing import Final

from tests.kit.journal import Journal

VARIABLE = "FAULTS_JOURNAL"
"""The environment variable that tells a worker process where its journal is."""

_serial = itertools.count(1)

begun: Final = threading.Event()
"""Set when the first run of this process has begun."""


def note(event: str, operation_id: str, run: int = 0) -> None:
    Journal(Path(os.environ[VARIABLE])).note(event, operation_id, run)


def begin(operation_id: str) -> int:
    """Note the start of a run and return its number within this process."""
    run = next(_serial)
    note("start", operation_id, run)
    begun.set()
    return run
