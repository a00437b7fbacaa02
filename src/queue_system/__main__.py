"""Starts the command line, as `queue-system` and as `python -m queue_system`."""

from __future__ import annotations

import contextlib
import signal
import sys

_INTERRUPTED = 130


def main() -> int:
    """Run the command line with the arguments of this process; return the exit code."""
    try:
        from queue_system.cli.app import run  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in {"typer", "rich"}:
            raise
        sys.stderr.write(f"queue-system needs {missing.name}: pip install 'redis-queue-system[cli]'\n")
        return 1
    code = _INTERRUPTED
    with contextlib.suppress(KeyboardInterrupt):  # a further one, while the first was told
        code = run()
    if code == _INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # else one more would kill what leaves with a code
    return code


if __name__ == "__main__":
    sys.exit(main())
