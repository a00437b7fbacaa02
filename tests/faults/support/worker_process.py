"""A worker in a process of its own, to be killed, frozen and interrupted. Its argument holds the settings as JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from typing import Any

from queue_system import QueueConfig, QueueWorker, run
from tests.faults.support.hooks import install


async def main(settings: dict[str, Any]) -> None:
    """Work until SIGTERM asks for an orderly end; tell the metrics of this process at that end."""
    wanted = settings.get("hooks", {})
    config = QueueConfig(**settings["config"], **wanted.get("config", {}))
    workers = [QueueWorker(config, **settings["worker"]) for _ in range(wanted.get("copies", 1))]
    asked_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked_to_stop.set)
    for worker in workers:
        await worker.start()
    print("ready", flush=True)  # noqa: T201 - how the test learns of it
    while settings["only_sleeps"]:  # noqa: ASYNC110 - the main coroutine that the specification shows
        await asyncio.sleep(1)
    await asked_to_stop.wait()
    await asyncio.gather(*(worker.stop() for worker in workers))
    print(json.dumps(config.get_metrics()), flush=True)  # noqa: T201 - how the test learns of it


if __name__ == "__main__":
    logging.basicConfig(format="%(relativeCreated)d %(levelname)s %(message)s", level=logging.INFO)
    settings = json.loads(sys.argv[1])
    install(settings.get("hooks", {}))
    if settings.get("standby"):
        print("standing by", flush=True)  # noqa: T201 - how the test learns of it
        sys.stdin.readline()
    start = run if settings.get("hooks", {}).get("uvloop") else asyncio.run
    start(main(settings))
