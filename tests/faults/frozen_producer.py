"""A program that enqueues to a server that it freezes: prints how long that took, and how it ended."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time

LIMIT_S = 0.5


def main(world: str, url: str, pid: int) -> None:
    """Enter the world of green sockets named, then call the server once well and once frozen."""
    _enter(world)
    from queue_system import QueueConfig, QueueManager  # noqa: PLC0415 - after the sockets have turned green

    config = QueueConfig(redis_url=url, connection_timeout=LIMIT_S, max_connection_retries=0)
    queue = QueueManager(config)
    queue.enqueue({}, "shop.pack", operation_id="well")
    os.kill(pid, signal.SIGSTOP)

    def measure() -> None:
        started = time.monotonic()
        try:
            queue.enqueue({}, "shop.pack", operation_id="frozen")
        except Exception as error:  # noqa: BLE001 - its name is the result
            print(type(error).__name__, round(time.monotonic() - started, 2))  # noqa: T201

    if world == "gevent threadpool":
        importlib.import_module("gevent").get_hub().threadpool.apply(measure)
    else:
        measure()


def _enter(world: str) -> None:
    library, _, how = world.partition(" ")
    if library == "gevent":
        monkey = importlib.import_module("gevent.monkey")
        if how == "sockets":
            monkey.patch_socket()
        else:
            monkey.patch_all()
    elif library == "eventlet":
        importlib.import_module("eventlet").monkey_patch()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
