"""Printing that copes with characters a stream lacks, a full disk, and a reader that has left."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import Final

_UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EPIPE})


class UnprintableError(Exception):
    """Output could not be written. `quiet` where its reader has left, as `head` does, and wants to hear no more."""

    def __init__(self, error: OSError) -> None:
        what = "stdout" if error.filename is None else str(error.filename)
        super().__init__(f"{what} cannot be written: {error.strerror}; nothing more is printed")
        self.quiet = error.errno == errno.EPIPE


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Write what a stream has no character for as an escape; raise UnprintableError for what cannot be written.

    What was printed has reached the system at the end of the block.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        _give_up()
        raise UnprintableError(error) from error


def _give_up() -> None:
    """Let what is left in the buffer go, which Python would try to write once more at its exit."""
    with contextlib.suppress(OSError, ValueError):  # a stream of a test has no descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
