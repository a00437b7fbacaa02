"""An observed worker in a process of its own, to be killed, frozen and stopped. Its argument holds settings as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from typing import Any

from queue_system import QueueConfig
from tests.nemesis import mutants
from tests.nemesis.observed import ObservedWorker, pen


async def main(settings: dict[str, Any]) -> None:
    """Work until SIGTERM asks for an orderly end."""
    mutants.apply(os.environ.get(mutants.VARIABLE, ""))
    asked_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop.set)
    worker = ObservedWorker(QueueConfig(**settings["config"]), **settings["worker"])
    await worker.start()
    pen().note("info", "worker", state="ready")
    await asked_to_stop.wait()
    await worker.stop()
    pen().note("info", "worker", state="stopped")


if __name__ == "__main__":
    logging.basicConfig(format="%(relativeCreated)d %(levelname)s %(message)s", level=logging.WARNING)
    asyncio.run(main(json.loads(sys.argv[1])))
