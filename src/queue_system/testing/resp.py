"""Reads the borders of requests and replies in a stream of RESP2."""

from __future__ import annotations

from queue_system.broker.commands import SCRIPTS

_NAMES = {text: script.name for script in SCRIPTS.values() for text in (script.sha.encode(), script.source)}


def value_end(data: bytes, start: int) -> int:
    """Return where the value that begins at `start` ends; -1 while it is incomplete."""
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        return -1
    kind = data[start : start + 1]
    end = line_end + 2
    if kind in {b"+", b"-", b":"}:
        return end
    if kind not in {b"$", b"*"}:
        raise ValueError(f"no RESP2 value begins with {kind!r}")
    length = int(data[start + 1 : line_end])
    if kind == b"$":
        end += length + 2 if length >= 0 else 0
        return end if end <= len(data) else -1
    for _ in range(length):
        if end >= len(data) or (end := value_end(data, end)) < 0:
            return -1
    return end


def command_name(request: bytes) -> str:
    """Return the name of the script that a request calls, or else its command, in capitals."""
    parts = request.split(b"\r\n", 5)
    command = parts[2].upper().decode()
    return _NAMES.get(parts[4], command) if command in {"EVALSHA", "EVAL"} else command


class Values:
    """Splits a stream into whole values."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Return the values that are complete now."""
        data = self._rest + data
        values = []
        start = 0
        while start < len(data) and (end := value_end(data, start)) >= 0:
            values.append(data[start:end])
            start = end
        self._rest = data[start:]
        return values
