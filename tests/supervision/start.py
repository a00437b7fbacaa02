"""Runs a worker as the command line does; its argument holds the settings as JSON. Never returns to its caller."""

from __future__ import annotations

import json
import sys
from typing import Any

from queue_system.supervision import WorkerSettings, run, supervisor


def main(settings: dict[str, Any]) -> int:
    """Run and return the exit code; `margin` shortens the supervisor's patience."""
    supervisor._MARGIN_S = settings.pop("margin", 10.0)
    return run(WorkerSettings(**settings), ends_process=True)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
