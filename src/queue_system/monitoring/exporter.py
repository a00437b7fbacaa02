"""The exporter: a process of its own that reports on the fleet, so that an outage of all workers is seen."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from typing import Final

import queue_system.monitoring.prometheus  # noqa: F401 - without prometheus-client there is nothing to export
from queue_system.config import QueueConfig
from queue_system.monitoring.labels import place_of
from queue_system.monitoring.probes import create_app, serve
from queue_system.validation import check_instance, check_list

ADDRESS: Final = "127.0.0.1:9201"
"""Where it is served by default."""


def export(config: QueueConfig, address: str = ADDRESS, *, allowed_hosts: Sequence[str] = ()) -> None:
    """Serve `/metrics`, `/status.json` and probes of a fleet until SIGINT or SIGTERM. Needs the main thread.

    An outage of the server does not end it: it reports the outage. The rights of a viewer are enough.

    Args:
        config: the fleet that is reported on.
        address: `"HOST:PORT"` where it listens.
        allowed_hosts: the names under which it is asked, besides addresses and names of a private network.

    Raises:
        OSError: the address is not free, or is not one of this machine.
        InvalidInputError: an argument is wrong.
    """
    check_instance("config", config, QueueConfig)
    asyncio.run(_export(config, address, check_list("allowed_hosts", allowed_hosts, "a list of host names")))


async def _export(config: QueueConfig, address: str, allowed_hosts: Sequence[str]) -> None:
    leave = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, leave.set)
    serving = asyncio.ensure_future(serve(create_app(config, None), address, allowed_hosts))
    leaving = asyncio.ensure_future(leave.wait())
    place = place_of(config)
    config.log.info("exporter serves metrics", address=f"http://{address}/metrics", **place._asdict())
    await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        leaving.cancel()
        await serving
        return
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
