"""A server for one test run, gone with its data at the end."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from queue_system.broker.embedded import ensure_server, release
from queue_system.broker.embedded_supervisor import SUPERVISOR_LOCK


@contextlib.contextmanager
def private_server() -> Iterator[str]:
    """Run an embedded server in a folder of its own and give its URL; stop it and remove its data at the end.

    Raises ServerError when none can be started.
    """
    folder = Path(tempfile.mkdtemp(prefix="queue-system-"))
    try:
        yield ensure_server(folder).url
    finally:
        release(folder)
        _wait_until_stopped(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_stopped(folder: Path) -> None:
    """Wait for the supervisor, which holds its lock until the server is gone."""
    with (folder / SUPERVISOR_LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
