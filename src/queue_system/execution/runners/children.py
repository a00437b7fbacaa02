"""Fresh interpreters as child processes, each joined to its parent by a socket."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from queue_system.imports.libraries import standard_library_paths
from queue_system.imports.modules import top_folder

_BOOT: Final = """
import sys
n, ours = map(int, sys.argv[1:3])
theirs = sys.argv[3 + ours :]
sys.path[:], sys.argv[1:] = sys.argv[3 : 3 + ours] + theirs, []
from {} import main
sys.path[:] = theirs
main(n)
"""
"""What a child does first. A file of the application's may be named as one that we import, such as `redis.py`, so what
we import comes from where this process has it."""

_NEEDED: Final = ("queue_system", "msgspec", "redis", "hiredis")


@dataclass(frozen=True, eq=False, slots=True)
class Child:
    """A child process that leads a session and process group of its own, so that no terminal signals it."""

    process: subprocess.Popen[bytes]
    channel: socket.socket

    @classmethod
    def start(cls, module: str, environment: Mapping[str, str] | None = None) -> Child:
        """Start `main(descriptor)` of a module, with this process's `sys.path`; both ends close when either dies."""
        ours, theirs = socket.socketpair()
        with theirs:
            descriptor = theirs.fileno()
            homes = _homes()
            numbers = str(descriptor), str(len(homes))
            arguments = [sys.executable, "-c", _BOOT.format(module), *numbers, *homes, *sys.path]
            try:
                process = subprocess.Popen(  # noqa: S603 - this interpreter, and a module of ours
                    arguments, stdin=subprocess.DEVNULL, pass_fds=[descriptor], start_new_session=True, env=environment
                )
            except BaseException:
                ours.close()
                raise
        return cls(process, ours)

    @staticmethod
    def adopt(descriptor: int) -> socket.socket:
        """Return the child's own end. It stays open to the very end of the process, and of this process only."""
        channel = socket.socket(fileno=descriptor)
        channel.set_inheritable(inheritable=False)
        atexit.register(channel.close)  # the first registered is the last to run
        os.register_at_fork(after_in_child=channel.close)
        return channel

    def hang_up(self) -> None:
        """Say nothing more: to the child that means that it is not wanted any longer."""
        with suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)

    def signal_group(self, number: signal.Signals) -> None:
        """Signal the child and what it started in its group. It must not have been waited for yet."""
        with suppress(ProcessLookupError, PermissionError):  # macOS refuses for a group of zombies
            os.killpg(self.process.pid, number)


def _homes() -> list[str]:
    """The folders from which this process has the standard library, this package and what it needs."""
    standard = standard_library_paths()
    homes = [entry for entry in sys.path if Path(entry) in standard or Path(entry).name == "lib-dynload"]
    for name in _NEEDED:
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is not None:
            homes.append(str(top_folder(name, file)))
    return list(dict.fromkeys(homes))
