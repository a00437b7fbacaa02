"""A program on a terminal of its own. Never shows what it prints."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Self

ROWS, COLUMNS = 30, 100
DEADLINE_S = 25.0
_LOOK_EVERY_S = 0.02


class Terminal:
    """A pseudo terminal with a program in it; `seen` is all that it printed."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self.seen = b""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        # The leader of a new session gets the terminal that it opens, so that Ctrl-C becomes a signal.
        opens = ["sh", "-c", 'exec "$@" <"$0" >"$0" 2>"$0"', os.ttyname(theirs)]
        self._process = subprocess.Popen([*opens, *command], env=env, start_new_session=True)
        self._theirs = theirs  # held open: else reading would end before the program has opened it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        os.close(self._ours)
        os.close(self._theirs)

    def send(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def read_until(self, text: bytes) -> None:
        """Read until the program has printed `text`; raise AssertionError if it does not."""
        deadline = time.monotonic() + DEADLINE_S
        while text not in self.seen:
            if not self._read(deadline):
                raise AssertionError(f"{text!r} did not come, but {self.seen!r}")

    def wait(self, keys: bytes = b"", again_s: float = 1.0) -> int:
        """Type `keys`, read until the program ends, and return the exit code.

        They are typed again every `again_s`, as a person would: a signal just before a read does not interrupt it.
        """
        typed_at = float("-inf")
        deadline = time.monotonic() + DEADLINE_S
        while self._process.poll() is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"it does not end, but printed {self.seen!r}")
            if keys and time.monotonic() - typed_at > again_s:
                self.send(keys)
                typed_at = time.monotonic()
            self._read(time.monotonic() + _LOOK_EVERY_S)  # else it might wait for somebody to read
        while self._read(time.monotonic()):
            pass
        return self._process.returncode

    def _read(self, deadline: float) -> bool:
        """Read what comes until then; tell whether something came."""
        ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))
        data = os.read(self._ours, 65536) if ready else b""
        self.seen += data
        return bool(data)
